"""Evaluation on held-out users (Liang et al. 2018, section 4.2).

Most of a held-out user's items fold in; the model should rank the others, the targets, first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow.compat.v1 as tf

from vae.config import Execution
from vae.load.dataset import HeldOut
from vae.metrics.aggregate import Mean
from vae.metrics.ranking import MAX_CUTOFF
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
        metrics: means over the users with targets.
        users: number of held-out users, with targets or not.
        seconds: wall time of ranking and computing the metrics.
    """

    metrics: dict[str, Mean]
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
    """Evaluate this worker's shard of the users; all workers return the results of all users.

    All workers must call this together. K of the graph is at least ``MAX_CUTOFF`` or the number of
    items; a batch is that of all workers together.

    Raises:
        EvaluationInterrupted: ``should_stop`` returned true on a worker.
    """
    start = time.perf_counter()
    users, items = held_out.fold_in.shape
    mine = shard(users, workers.rank, workers.size)
    shard_size = max(1, batch_size // workers.size)
    batches: list[UserResults] = []
    for first in range(mine.start, mine.stop, shard_size):
        workers.report_position(f"the evaluation of user {first}")
        if should_stop():
            break
        rows = slice(first, min(first + shard_size, mine.stop))
        ranking = session.run(graph.items, feed(graph.histories, held_out.fold_in[rows]))
        batches.append(UserResults.of(ranking, held_out.targets[rows]))
        advance(rows.stop - rows.start)
    of_shard = None if should_stop() else UserResults.concatenate(batches, items)
    shards = workers.allgather_object(of_shard)
    workers.report_position(None)
    if None in shards:
        raise EvaluationInterrupted
    results = UserResults.concatenate(shards, items)
    return Result(results.metrics, users, time.perf_counter() - start, results)


def evaluate_model(
    model: TrainedModel,
    held_out: HeldOut,
    batch_size: int,
    execution: Execution,
    workers: Workers,
    progress: Progress,
) -> Result:
    """Evaluate a model in a session of its own; see ``evaluate``.

    ``progress`` returns a bar for the number of this worker's users.
    """
    k = min(MAX_CUTOFF, model.architecture.items)
    mine = shard(len(held_out.user_ids), workers.rank, workers.size)
    with (
        progress(mine.stop - mine.start) as bar,
        open_inference_session(model, execution, workers, k, batch_size) as (session, graph),
    ):
        return evaluate(session, graph, held_out, workers, batch_size, advance=bar.update)
