"""Evaluation on held-out users, as Liang et al. (2018), section 4.2, do it.

Most of a held-out user's items fold in, the others are to be found among the best of the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow.compat.v1 as tf

from vae.load import HeldOut
from vae.metrics import LIANG_METRICS, Moments, liang_metrics, means_and_errors
from vae.metrics.ranking import LONGEST_CUTOFF
from vae.models.inference_graph import Ranking
from vae.models.sparse_input import feed
from vae.utils.distributed import Workers, share


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
        return self.metrics[LIANG_METRICS[0]].users

    @property
    def throughput(self) -> float:
        """Users a second."""
        return self.users / self.seconds

    def figures(self) -> dict[str, float]:
        """Mean and standard error of each metric, by the names that the log uses."""
        return means_and_errors(self.metrics)


def metric_depth(items: int) -> int:
    """How long a ranking of a catalogue of ``items`` has to be for the metrics to be right."""
    return min(LONGEST_CUTOFF, items)


class BrokenOff(Exception):
    """An evaluation had to end before it was complete; raised on all workers."""


def evaluate(
    session: tf.Session,
    ranking: Ranking,
    held_out: HeldOut,
    workers: Workers,
    batch_size: int,
    must_end: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Ranks and scores this worker's share of the users; every worker returns the whole result.

    Args:
        session: holds the model's weights.
        ranking: the inference graph, at least ``metric_depth`` deep.
        held_out: all users of the set.
        workers: those who share the work; all must call this together.
        batch_size: users ranked at a time, on all workers together.
        must_end: whether this worker has to break off; asked before each batch.

    Raises:
        BrokenOff: some worker had to.
    """
    start = time.perf_counter()
    mine = share(held_out.fold_in.shape[0], workers.rank, workers.size)
    step = max(1, batch_size // workers.size)
    totals = dict.fromkeys(LIANG_METRICS, Moments())
    for first in range(mine.start, mine.stop, step):
        if must_end():
            break
        rows = slice(first, min(first + step, mine.stop))
        items = session.run(ranking.items, feed(ranking.histories, held_out.fold_in[rows]))
        for name, moments in liang_metrics(items, held_out.ranked[rows]).items():
            totals[name] += moments
    if workers.sum([must_end()]).any():
        raise BrokenOff
    return Evaluation(
        {name: _sum(moments, workers) for name, moments in totals.items()},
        held_out.fold_in.shape[0],
        time.perf_counter() - start,
    )


def _sum(moments: Moments, workers: Workers) -> Moments:
    users, total, total_squares = workers.sum(
        [moments.users, moments.total, moments.total_squares]
    ).tolist()
    return Moments(int(users), total, total_squares)
