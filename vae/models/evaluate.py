"""Evaluation on held-out users (Liang et al. 2018, section 4.2).

Most of a held-out user's items fold in; the model should rank the others, the targets, first.
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
    """Metrics over all held-out users of a set.

    Attributes:
        metrics: moments of each metric over the users with targets.
        users: number of held-out users, with targets or not.
        seconds: wall time of ranking and scoring.
    """

    metrics: dict[str, Moments]
    users: int
    seconds: float

    @property
    def scored_users(self) -> int:
        """Number of users with targets."""
        return self.metrics[SELECTION_METRIC].users

    @property
    def throughput(self) -> float:
        """Users per second."""
        return self.users / self.seconds

    def values(self) -> dict[str, float]:
        """Return mean and standard error of each metric by their log keys."""
        return means_and_errors(self.metrics)


@dataclass(frozen=True)
class TestResult:
    """Metrics of the model and of the popularity baseline on the test users."""

    model: Evaluation
    popularity: Mapping[str, Moments]

    def summary(self) -> dict[str, float]:
        """Return the metrics for the run's summary by their log keys."""
        model = {f"test_{name}": value for name, value in self.model.values().items()}
        baseline = means_and_errors(self.popularity)
        return {
            **model,
            **{f"popularity_{name}": value for name, value in baseline.items()},
            "test_users": self.model.scored_users,
            "test_time": self.model.seconds,
        }

    def table(self) -> str:
        """Return a table of the metrics, human-readable."""
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
    """Return the length of the rankings that the metrics need, at most the number of items."""
    return min(MAX_CUTOFF, items)


def test(config: Config, dataset: Dataset, workers: Workers, model: TrainedModel) -> TestResult:
    """Evaluate a model and the popularity baseline on the test users; all ranks get the result."""
    depth = min_ranking_depth(model.architecture.items)
    batch, users = config.batch_size_validation, dataset.test
    with open_inference_session(config, workers, model, depth, batch) as (session, graph):
        result = evaluate(session, graph, users, workers, batch)
    popular = recommend_popular(dataset.train, users.fold_in, MAX_CUTOFF)
    return TestResult(result, score(popular, users.targets))


class EvaluationInterrupted(Exception):
    """An evaluation was interrupted; raised on all workers."""


def evaluate(
    session: tf.Session,
    graph: InferenceGraph,
    held_out: HeldOut,
    workers: Workers,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Rank and score this worker's shard of the users; all workers return the whole result.

    Args:
        session: holds the model's weights.
        graph: inference graph whose K is at least ``min_ranking_depth``.
        held_out: all users of the set.
        workers: they share the users; all of them must call this together.
        batch_size: users per batch, over all workers.
        should_stop: whether this worker has to interrupt; called before each batch.

    Raises:
        EvaluationInterrupted: ``should_stop`` returned true on a worker.
    """
    start = time.perf_counter()
    mine = shard(held_out.fold_in.shape[0], workers.rank, workers.size)
    shard_size = max(1, batch_size // workers.size)
    totals = dict.fromkeys(METRICS, Moments())
    for first in range(mine.start, mine.stop, shard_size):
        if should_stop():
            break
        rows = slice(first, min(first + shard_size, mine.stop))
        items = session.run(graph.items, feed(graph.histories, held_out.fold_in[rows]))
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
