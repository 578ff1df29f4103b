"""Evaluation on held-out users, as Liang et al. (2018), section 4.2, do it.

Most of a held-out user's items fold in, the others are to be found among the best of the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow.compat.v1 as tf

from vae.baselines.popularity import recommend_popular
from vae.config import Config
from vae.load.dataset import Dataset, HeldOut
from vae.metrics.aggregate import Moments, means_and_errors
from vae.metrics.ranking import MAX_CUTOFF, METRICS, SELECTION_METRIC, score
from vae.models.inference_graph import InferenceGraph
from vae.models.sparse_input import feed
from vae.models.trained_model import TrainedModel, open_inference_session
from vae.utils.distributed import Workers, shard


@dataclass(frozen=True)
class Evaluation:
    """Metrics over all held-out users of a set, and what they took to compute.

    Attributes:
        metrics: moments over the users with something to rank.
        users: held-out users, those with nothing to rank included.
        seconds: wall time of ranking and scoring.
    """

    metrics: dict[str, Moments]
    users: int
    seconds: float

    @property
    def scored_users(self) -> int:
        """Users with something to rank."""
        return self.metrics[SELECTION_METRIC].users

    @property
    def throughput(self) -> float:
        """Users a second."""
        return self.users / self.seconds

    def values(self) -> dict[str, float]:
        """Mean and standard error of each metric, by the names that the log uses."""
        return means_and_errors(self.metrics)


@dataclass(frozen=True)
class TestResult:
    """The model on the test users, beside the baseline on the same users."""

    model: Evaluation
    popularity: Mapping[str, Moments]

    def summary(self) -> dict[str, float]:
        """The test's part of the run's summary, by the names that the log uses."""
        model = {f"test_{name}": value for name, value in self.model.values().items()}
        baseline = means_and_errors(self.popularity)
        return {
            **model,
            **{f"popularity_{name}": value for name, value in baseline.items()},
            "test_users": self.model.scored_users,
            "test_time": self.model.seconds,
        }

    def table(self) -> str:
        """The metrics side by side, human-readable."""
        lines = [
            f"Test on {self.model.users} held-out users, {self.model.scored_users} of them with "
            "targets:",
            f"{'':12}{'model':>20}{'most popular':>20}",
        ]
        for name in METRICS:
            cells = (
                _with_error(moments[name]) for moments in (self.model.metrics, self.popularity)
            )
            lines.append(f"{name:12}" + "".join(f"{cell:>20}" for cell in cells))
        return "\n".join(lines)


def min_ranking_depth(items: int) -> int:
    """Return how long a ranking of a catalogue of ``items`` must be for the metrics."""
    return min(MAX_CUTOFF, items)


def test(config: Config, dataset: Dataset, workers: Workers, model: TrainedModel) -> TestResult:
    """Evaluate a model and the popularity baseline on the test users, the same on all ranks."""
    depth = min_ranking_depth(model.architecture.items)
    batch, users = config.batch_size_validation, dataset.test
    with open_inference_session(config, workers, model, depth, batch) as (session, graph):
        result = evaluate(session, graph, users, workers, batch)
    popular = recommend_popular(dataset.train, users.fold_in, MAX_CUTOFF)
    return TestResult(result, score(popular, users.targets))


class EvaluationInterrupted(Exception):
    """An evaluation had to end before it was complete; raised on all workers."""


def evaluate(
    session: tf.Session,
    ranking: InferenceGraph,
    held_out: HeldOut,
    workers: Workers,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Ranks and scores this worker's share of the users; every worker returns the whole result.

    Args:
        session: holds the model's weights.
        ranking: the inference graph, at least ``min_ranking_depth`` deep.
        held_out: all users of the set.
        workers: those who share the work; all must call this together.
        batch_size: users ranked at a time, on all workers together.
        should_stop: whether this worker has to break off; asked before each batch.

    Raises:
        EvaluationInterrupted: some worker had to.
    """
    start = time.perf_counter()
    mine = shard(held_out.fold_in.shape[0], workers.rank, workers.size)
    step = max(1, batch_size // workers.size)
    totals = dict.fromkeys(METRICS, Moments())
    for first in range(mine.start, mine.stop, step):
        if should_stop():
            break
        rows = slice(first, min(first + step, mine.stop))
        items = session.run(ranking.items, feed(ranking.histories, held_out.fold_in[rows]))
        for name, moments in score(items, held_out.targets[rows]).items():
            totals[name] += moments
    if workers.allreduce([should_stop()]).any():
        raise EvaluationInterrupted
    return Evaluation(
        {name: _sum(moments, workers) for name, moments in totals.items()},
        held_out.fold_in.shape[0],
        time.perf_counter() - start,
    )


def _sum(moments: Moments, workers: Workers) -> Moments:
    users, total, total_squares = workers.allreduce(
        [moments.users, moments.total, moments.total_squares]
    ).tolist()
    return Moments(int(users), total, total_squares)


def _with_error(moments: Moments) -> str:
    return f"{moments.mean:.5f} ± {moments.standard_error:.5f}"
