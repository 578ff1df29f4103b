"""Evaluation on held-out users (Liang et al. 2018, section 4.2).

Most of a held-out user's items fold in; the model should rank the others, the targets, first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

import numpy as np
import tensorflow.compat.v1 as tf

from vae.config import Execution
from vae.load.dataset import HeldOut
from vae.metrics.aggregate import Moments
from vae.metrics.ranking import MAX_CUTOFF, METRICS
from vae.metrics.user_results import UserResults
from vae.models.graph.inference_graph import InferenceGraph
from vae.models.graph.sparse_input import feed
from vae.models.inference.trained_model import TrainedModel, open_inference_session
from vae.utils.console import Progress
from vae.utils.distributed import Workers, shard


@dataclass(frozen=True)
class Result:
    """Metrics over all held-out users of a set.

    Attributes:
        metrics: moments of each metric over the users with targets.
        users: number of held-out users, with targets or not.
        seconds: wall time of ranking and computing the metrics.
        user_results: of this worker's shard of the users, user by user.
    """

    metrics: dict[str, Moments]
    users: int
    seconds: float
    user_results: UserResults


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
) -> Result:
    """Evaluate this worker's shard of the users; all workers return the metrics of all users.

    Args:
        session: holds the model's weights.
        graph: inference graph whose K is at least ``MAX_CUTOFF`` or the number of items.
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
    mine_alone = [value for moments in totals.values() for value in astuple(moments)]
    interrupted, *sums = workers.allreduce([should_stop(), *mine_alone])
    workers.report_position(None)
    if interrupted:
        raise EvaluationInterrupted
    metrics = {
        name: Moments(int(users), total, total_squares)
        for name, (users, total, total_squares) in zip(
            METRICS, np.reshape(sums, (-1, 3)).tolist(), strict=True
        )
    }
    return Result(
        metrics,
        held_out.fold_in.shape[0],
        time.perf_counter() - start,
        UserResults.concatenate(batches, held_out.fold_in.shape[1]),
    )


def evaluate_model(
    model: TrainedModel,
    held_out: HeldOut,
    batch_size: int,
    execution: Execution,
    workers: Workers,
    progress: Progress,
) -> Result:
    """Evaluate a model in a session of its own, on all ranks with the results of all users.

    Args:
        model: the model.
        held_out: all users of the set.
        batch_size: users per batch, over all workers.
        execution: how the session computes.
        workers: they share the users; all of them must call this together.
        progress: shows how many users are done.
    """
    items = model.architecture.items
    k = min(MAX_CUTOFF, items)
    mine = shard(len(held_out.user_ids), workers.rank, workers.size)
    with (
        progress("Testing the model", mine.stop - mine.start) as bar,
        open_inference_session(model, execution, workers, k, batch_size) as (session, graph),
    ):
        result = evaluate(session, graph, held_out, workers, batch_size, advance=bar.update)
    shards = workers.allgather_object(result.user_results)
    return replace(result, user_results=UserResults.concatenate(shards, items))
