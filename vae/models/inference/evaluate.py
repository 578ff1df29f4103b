"""Evaluation on held-out users (Liang et al. 2018, section 4.2).

Most of a held-out user's items fold in; the model should rank the others, the targets, first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import tensorflow.compat.v1 as tf

from vae.config import Config
from vae.load.dataset import HeldOut
from vae.metrics.aggregate import Moments, means_and_errors
from vae.metrics.ranking import MAX_CUTOFF, METRICS, SELECTION_METRIC
from vae.metrics.user_results import UserResults
from vae.models.graph.inference_graph import InferenceGraph
from vae.models.graph.sparse_input import feed
from vae.models.inference.trained_model import TrainedModel, open_inference_session
from vae.utils.distributed import Workers, shard
from vae.utils.run_log import RunLog


@dataclass(frozen=True)
class Evaluation:
    """Metrics over all held-out users of a set.

    Attributes:
        metrics: moments of each metric over the users with targets.
        users: number of held-out users, with targets or not.
        seconds: wall time of ranking and scoring.
        results: of this worker's shard of the users, user by user.
    """

    metrics: dict[str, Moments]
    users: int
    seconds: float
    results: UserResults

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


def min_ranking_depth(items: int) -> int:
    """Return the length of the rankings that the metrics need, at most the number of items."""
    return min(MAX_CUTOFF, items)


def evaluate_on_all(
    config: Config, users: HeldOut, workers: Workers, log: RunLog, model: TrainedModel
) -> Evaluation:
    """Evaluate a model; on all ranks the results are those of all users."""
    items, batch = model.architecture.items, config.evaluation.batch_size_validation
    depth = min_ranking_depth(items)
    mine = shard(len(users.user_ids), workers.rank, workers.size)
    with (
        log.progress("Testing the model", mine.stop - mine.start) as bar,
        open_inference_session(config.execution, workers, model, depth, batch) as (session, graph),
    ):
        result = evaluate(session, graph, users, workers, batch, advance=bar.update)
    shards = workers.allgather_object(result.results)
    return replace(result, results=UserResults.concatenate(shards, items))


class EvaluationInterrupted(Exception):
    """An evaluation was interrupted; raised on all workers."""


def evaluate(
    session: tf.Session,
    graph: InferenceGraph,
    held_out: HeldOut,
    workers: Workers,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
    advance: Callable[[int], object] = lambda users: None,
) -> Evaluation:
    """Rank and score this worker's shard of the users; all workers return the whole result.

    Args:
        session: holds the model's weights.
        graph: inference graph whose K is at least ``min_ranking_depth``.
        held_out: all users of the set.
        workers: they share the users; all of them must call this together.
        batch_size: users per batch, over all workers.
        should_stop: whether this worker has to interrupt; called before each batch.
        advance: takes the number of users of each batch that is done.

    Raises:
        EvaluationInterrupted: ``should_stop`` returned true on a worker.
    """
    start = time.perf_counter()
    mine = shard(held_out.fold_in.shape[0], workers.rank, workers.size)
    shard_size = max(1, batch_size // workers.size)
    batches: list[UserResults] = []
    totals = dict.fromkeys(METRICS, Moments())
    for first in range(mine.start, mine.stop, shard_size):
        workers.report_position(f"the evaluation of user {first}")
        if should_stop():
            break
        rows = slice(first, min(first + shard_size, mine.stop))
        items = session.run(graph.items, feed(graph.histories, held_out.fold_in[rows]))
        batches.append(UserResults.of(items, held_out.targets[rows]))
        for name, moments in batches[-1].metrics.items():
            totals[name] += moments
        advance(rows.stop - rows.start)
    if workers.allreduce([should_stop()]).any():
        raise EvaluationInterrupted
    sums = {name: _sum(moments, workers) for name, moments in totals.items()}
    workers.report_position(None)
    return Evaluation(
        sums,
        held_out.fold_in.shape[0],
        time.perf_counter() - start,
        UserResults.concatenate(batches, held_out.fold_in.shape[1]),
    )


def _sum(moments: Moments, workers: Workers) -> Moments:
    users, total, total_squares = workers.allreduce(
        [moments.users, moments.total, moments.total_squares]
    ).tolist()
    return Moments(int(users), total, total_squares)
