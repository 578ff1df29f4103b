"""Evaluation on held-out users (Liang et al. 2018, section 4.2).

Most of a held-out user's items fold in; the model should rank the others, the targets, first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.baselines.fit import fit_baselines
from vae.config import COMPARISONS, Config
from vae.load.dataset import Dataset, HeldOut
from vae.metrics.aggregate import Moments, means_and_errors
from vae.metrics.ranking import MAX_CUTOFF, METRICS, SELECTION_METRIC, score_users
from vae.models.inference_graph import InferenceGraph
from vae.models.sparse_input import feed
from vae.models.trained_model import TrainedModel, open_inference_session
from vae.utils.distributed import Workers, on_rank_0, shard

UserScores = Mapping[str, NDArray[np.float64]]
"""(users,) float64 scores by each metric, NaN for users without targets."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics over all held-out users of a set.

    Attributes:
        metrics: moments of each metric over the users with targets.
        users: number of held-out users, with targets or not.
        seconds: wall time of ranking and scoring.
        scores: (users,) float64 scores of this worker's shard of the users by each metric.
    """

    metrics: dict[str, Moments]
    users: int
    seconds: float
    scores: UserScores

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
class Comparison:
    """A baseline on the users that the model was evaluated on.

    Attributes:
        metrics: moments of each metric over the users with targets.
        differences: the same of the model's score minus the baseline's, user by user: its standard
            error is usually much smaller than those of the two scores.
    """

    metrics: Mapping[str, Moments]
    differences: Mapping[str, Moments]


@dataclass(frozen=True)
class TestResult:
    """Metrics of the model and of the baselines on the test users.

    Attributes:
        model: of the model.
        baselines: comparisons by the name of the baseline.
        settings: hyperparameters of the baselines, by their log keys.
    """

    model: Evaluation
    baselines: Mapping[str, Comparison]
    settings: Mapping[str, float]

    def summary(self) -> dict[str, float]:
        """Return the metrics for the run's summary by their log keys."""
        values = _with_prefix("test", self.model.values())
        for name, baseline in self.baselines.items():
            values |= _with_prefix(name, means_and_errors(baseline.metrics))
            values |= _with_prefix(f"test_minus_{name}", means_and_errors(baseline.differences))
        counts = {"test_users": self.model.scored_users, "test_time": self.model.seconds}
        return values | counts | dict(self.settings)

    def table(self) -> str:
        """Return a table of the metrics, human-readable."""
        columns = {"model": self.model.metrics} | {
            COMPARISONS[name]: baseline.metrics for name, baseline in self.baselines.items()
        }
        differences = {
            f"- {COMPARISONS[name]}": baseline.differences
            for name, baseline in self.baselines.items()
        }
        return "\n".join(
            [
                f"Test on {self.model.users} held-out users, {self.model.scored_users} of them "
                "with targets:",
                *_rows(columns),
                "The model's score minus that of the baseline, user by user:",
                *_rows(differences, sign="+"),
            ]
        )


def min_ranking_depth(items: int) -> int:
    """Return the length of the rankings that the metrics need, at most the number of items."""
    return min(MAX_CUTOFF, items)


def test(config: Config, dataset: Dataset, workers: Workers, model: TrainedModel) -> TestResult:
    """Evaluate a model and the baselines on the test users; all ranks get the result.

    Rank 0 alone fits the baselines, each of which may take as much memory as the model.
    """
    users = dataset.test
    result = _evaluate_on_all(config, users, workers, model)
    comparisons: dict[str, Comparison] = {}
    settings: dict[str, float] = {}
    ease_lambda = config.ease_lambda
    if model.is_blended and model.blend:
        settings = {f"blend_{name}": value for name, value in model.blend.items()}
        ease_lambda = model.blend["ease_lambda"]
        alone = _evaluate_on_all(config, users, workers, model.unblended())
        comparisons["unblended"] = _compare(result.scores, alone.scores)

    def compare() -> tuple[dict[str, Comparison], dict[str, float]]:
        fitted = fit_baselines(config.baseline_names, dataset, ease_lambda)
        return (
            {
                name: _compare(
                    result.scores, score_users(baseline.rank(users.fold_in), users.targets)
                )
                for name, baseline in fitted.items()
            },
            {name: value for one in fitted.values() for name, value in one.settings.items()},
        )

    baselines, chosen = on_rank_0(workers, compare)
    return TestResult(result, comparisons | baselines, settings | chosen)


def _evaluate_on_all(
    config: Config, users: HeldOut, workers: Workers, model: TrainedModel
) -> Evaluation:
    """Evaluate a model; on all ranks the result has the scores of all users."""
    depth = min_ranking_depth(model.architecture.items)
    batch = config.batch_size_validation
    with open_inference_session(config, workers, model, depth, batch) as (session, graph):
        result = evaluate(session, graph, users, workers, batch)
    shards = workers.allgather_object(result.scores)
    scores = {name: np.concatenate([shard[name] for shard in shards]) for name in METRICS}
    return replace(result, scores=scores)


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
    batches = [{name: np.empty(0) for name in METRICS}]
    totals = dict.fromkeys(METRICS, Moments())
    for first in range(mine.start, mine.stop, shard_size):
        if should_stop():
            break
        rows = slice(first, min(first + shard_size, mine.stop))
        items = session.run(graph.items, feed(graph.histories, held_out.fold_in[rows]))
        batches.append(score_users(items, held_out.targets[rows]))
        for name, scores in batches[-1].items():
            totals[name] += Moments.of(scores)
    if workers.allreduce([should_stop()]).any():
        raise EvaluationInterrupted
    return Evaluation(
        {name: _sum(moments, workers) for name, moments in totals.items()},
        held_out.fold_in.shape[0],
        time.perf_counter() - start,
        {name: np.concatenate([scores[name] for scores in batches]) for name in METRICS},
    )


def _sum(moments: Moments, workers: Workers) -> Moments:
    users, total, total_squares = workers.allreduce(
        [moments.users, moments.total, moments.total_squares]
    ).tolist()
    return Moments(int(users), total, total_squares)


def _compare(model: UserScores, other: UserScores) -> Comparison:
    """Compare a model with another one on the same users."""
    return Comparison(
        {name: Moments.of(other[name]) for name in METRICS},
        {name: Moments.of(model[name] - other[name]) for name in METRICS},
    )


def _with_prefix(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _rows(columns: Mapping[str, Mapping[str, Moments]], sign: str = "") -> list[str]:
    """Return the lines of a table with a row per metric, with or without the sign ``+``."""
    lines = [f"{'':12}" + "".join(f"{title:>20}" for title in columns)]
    for name in METRICS:
        cells = (
            f"{moments[name].mean:{sign}.5f} ± {moments[name].standard_error:.5f}"
            for moments in columns.values()
        )
        lines.append(f"{name:12}" + "".join(f"{cell:>20}" for cell in cells))
    return lines
