"""``--explain``: the items of a history with the largest leave-one-out effect on a recommendation.

The effect of an item is the drop in the log-probability of the recommended item, in nats, when the
item is left out of the history. It is exact: the model is run again on each history without each
of its items.

Shapes: B users, I items, K recommendations per user, N effects per recommendation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

LogProbabilities = Callable[[csr_matrix, NDArray[np.int32]], NDArray[np.float32]]
"""Runs the model: (B, I) histories and (B, K) item indices -> (B, K) log-probabilities."""


class Explanations(NamedTuple):
    """History items with the largest effects on recommendations, largest first.

    Attributes:
        items: (B, K, N) int32 item indices, -1 where no further item has a positive effect.
        effects: (B, K, N) float32, 0 where the item is -1.
    """

    items: NDArray[np.int32]
    effects: NDArray[np.float32]


def explain(
    log_probabilities: LogProbabilities,
    histories: csr_matrix,
    recommended: NDArray[np.int32],
    n: int,
    max_users: int,
    max_items: int = 1 << 22,
    advance: Callable[[int], object] = lambda users: None,
) -> Explanations:
    """Explain the (B, K) recommended items, -1 for none, to users with (B, I) histories.

    A call of the model has at most ``max_users`` histories with ``max_items`` items altogether,
    which take 8 bytes each. ``advance`` takes the number of users of each group that is done.
    """
    shape = (*recommended.shape, n)
    found = Explanations(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
    # Users with max_users items altogether: their drops fit into memory.
    for first, last in _groups(np.diff(histories.indptr), max_users, max_users):
        group, items = histories[first:last], np.maximum(recommended[first:last], 0)
        whole = log_probabilities(group, items)
        rest = _without_each(log_probabilities, group, items, max_users, max_items)
        for user in range(last - first):
            own = slice(group.indptr[user], group.indptr[user + 1])
            drops = whole[user] - rest[own]  # (items of the history, K)
            largest = np.argsort(-drops, axis=0, kind="stable")[:n]
            effects = np.take_along_axis(drops, largest, axis=0).T
            has_effect = (effects > 0) & (recommended[first + user] >= 0)[:, np.newaxis]
            place = np.s_[first + user, :, : len(largest)]
            found.items[place] = np.where(has_effect, group.indices[own][largest].T, -1)
            found.effects[place] = np.where(has_effect, effects, 0)
        advance(last - first)
    return found


def leave_one_out(histories: csr_matrix, first: int, last: int) -> csr_matrix:
    """Return the (last - first, I) histories of some items, each without that item.

    The stored items of the (B, I) histories are numbered row by row; ``last`` is not among them.
    """
    left_out = np.arange(first, last)
    users = np.searchsorted(histories.indptr, left_out, side="right") - 1
    copies = histories[users]
    places = copies.indptr[:-1] + left_out - histories.indptr[users]
    data, indices = (np.delete(values, places) for values in (copies.data, copies.indices))
    starts = copies.indptr - np.arange(len(copies.indptr))  # each row above has lost one item
    return csr_matrix((data, indices, starts), copies.shape)


def _without_each(
    log_probabilities: LogProbabilities,
    histories: csr_matrix,
    items: NDArray[np.int32],
    max_users: int,
    max_items: int,
) -> NDArray[np.float32]:
    """Return the (stored items, K) log-probabilities without each stored item of the histories."""
    lengths = np.diff(histories.indptr)
    users = np.repeat(np.arange(len(lengths)), lengths)
    parts = [
        log_probabilities(leave_one_out(histories, first, last), items[users[first:last]])
        for first, last in _groups(lengths[users], max_users, max_items)
    ]
    return np.concatenate(parts) if parts else np.empty((0, items.shape[1]), np.float32)


def _groups(sizes: NDArray[np.int64], max_rows: int, max_size: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the one after the last of groups of consecutive rows.

    The (rows,) sizes of a group of several rows sum up to ``max_size`` at most.
    """
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        fitting = int(np.searchsorted(ends, before + max_size, side="right"))
        last = min(max(fitting, first + 1), first + max_rows)
        yield first, last
        first = last
