"""``--explain``: the items of a history that speak most for a recommendation.

An item speaks for a recommendation by as much as the log-probability of the recommended item falls
when the item is left out of the history. That is exact: the model is run again on each history
without each of its items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Score = Callable[[csr_matrix, NDArray[np.int32]], NDArray[np.float32]]
"""Takes (B, I) histories and (B, K) item indices; returns the (B, K) log-probabilities in nats."""

_MAX_ITEMS = 1 << 22
"""Items of the histories of one call, which take 8 bytes each."""


class Explanations(NamedTuple):
    """Items that speak for recommendations, most first.

    Attributes:
        items: (B, K, N) int32 item indices, -1 where no further item speaks for it.
        changes: (B, K, N) float32 falls of the log-probability in nats, 0 where the item is -1.
    """

    items: NDArray[np.int32]
    changes: NDArray[np.float32]


def explain(
    score: Score,
    histories: csr_matrix,
    items: NDArray[np.int32],
    n: int,
    max_users: int,
    advance: Callable[[int], object] = lambda users: None,
) -> Explanations:
    """Explain recommendations.

    Args:
        score: runs the model.
        histories: (B, I) items that the model saw.
        items: (B, K) recommended item indices; any is accepted where there is none, -1.
        n: N, items to name.
        max_users: maximum number of histories of a call of ``score``.
        advance: takes the number of users of each group that is done.
    """
    users, k = items.shape
    reasons = np.full((users, k, n), -1, np.int32)
    changes = np.zeros((users, k, n), np.float32)
    scored = np.maximum(items, 0)
    for first, last in _groups(np.diff(histories.indptr), max_users):
        group = histories[first:last]
        whole = score(group, scored[first:last])
        rows = np.repeat(np.arange(last - first), np.diff(group.indptr))
        falls = whole[rows] - _without_each(score, group, scored[first:last][rows], max_users)
        for user in range(last - first):
            start, end = group.indptr[user], group.indptr[user + 1]
            most = np.argsort(-falls[start:end], axis=0, kind="stable")[:n]
            fall = np.take_along_axis(falls[start:end], most, axis=0).T
            reason = np.where(fall > 0, group.indices[start:end][most].T, -1)
            reasons[first + user, :, : len(most)] = reason
            changes[first + user, :, : len(most)] = np.maximum(fall, 0)
        advance(last - first)
    reasons[items < 0] = -1
    changes[items < 0] = 0
    return Explanations(reasons, changes)


def leave_one_out(histories: csr_matrix, first: int, last: int) -> csr_matrix:
    """Return the histories of items ``first`` to ``last`` - 1 of a matrix without that item.

    Args:
        histories: (B, I); its stored items are numbered row by row.
        first: number of the first item to leave out.
        last: number after the last one.

    Returns:
        (last - first, I) uint8 ones.
    """
    left_out = np.arange(first, last)
    rows = np.searchsorted(histories.indptr, left_out, side="right") - 1
    lengths = np.diff(histories.indptr)[rows]
    ends = np.cumsum(lengths)
    place = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
    positions = np.repeat(histories.indptr[rows], lengths) + place
    indices = histories.indices[positions[positions != np.repeat(left_out, lengths)]]
    starts = np.append(0, np.cumsum(lengths - 1))
    return csr_matrix(
        (np.ones(len(indices), np.uint8), indices, starts), (last - first, histories.shape[1])
    )


def _without_each(
    score: Score, histories: csr_matrix, scored: NDArray[np.int32], max_users: int
) -> NDArray[np.float32]:
    """Return the (N, K) log-probabilities without each of the N items of the histories.

    Args:
        score: runs the model.
        histories: (B, I) histories.
        scored: (N, K) item indices, those of each item's user.
        max_users: maximum number of histories of a call.
    """
    lengths = np.diff(histories.indptr)
    sizes = np.repeat(lengths, lengths)
    parts = [
        score(leave_one_out(histories, first, last), scored[first:last])
        for first, last in _groups(sizes, max_users, _MAX_ITEMS)
    ]
    return np.concatenate(parts) if parts else np.empty(scored.shape, np.float32)


def _groups(
    sizes: NDArray[np.int64], max_rows: int, max_size: int | None = None
) -> Iterator[tuple[int, int]]:
    """Yield the first row and the one after the last of groups of consecutive rows.

    Args:
        sizes: (rows,) size of each row.
        max_rows: maximum number of rows of a group.
        max_size: maximum sum of the sizes of a group of several rows; None for ``max_rows``.
    """
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        fitting = int(np.searchsorted(ends, before + (max_size or max_rows), side="right"))
        last = min(max(fitting, first + 1), first + max_rows)
        yield first, last
        first = last
