"""A user's best items by any scores, without those of the history.

Shapes: B users, I items, K recommendations per user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from vae.metrics.ranking import MAX_CUTOFF

_BLOCK_SCORES = 1 << 24
"""Scores of a block of users: 64 MB."""


def best_unseen(
    scores: Callable[[csr_matrix], Any],
    seen: csr_matrix,
    k: int = MAX_CUTOFF,
    allowed: csr_matrix | None = None,
    advance: Callable[[int], object] = lambda users: None,
    users_per_block: int | None = None,
) -> NDArray[np.int64]:
    """Rank each user's k best items that are not in the history.

    Args:
        scores: returns the scores of a block of histories, float32 rows of ``seen``: dense or
            sparse with one row per user, or (I,) for all of them. An item with -inf is not ranked.
        seen: (B, I) ones at the items that the users have.
        k: recommendations per user.
        allowed: (B, I) ones at the only items to rank; None to rank all.
        advance: takes the number of users of each block that is done.
        users_per_block: users whose scores are in memory at a time; None for 64 MB of them.

    Returns:
        (B, K) item indices with K = min(k, I), best first (ties: lower index first), -1 where
        nothing is left to recommend.
    """
    users, items = seen.shape
    k = min(k, items)
    block = users_per_block or max(1, _BLOCK_SCORES // items)
    ranking = np.full((users, k), -1)
    for first in range(0, users, block):
        part = seen[first : first + block]
        found = scores(part.astype(np.float32))
        dense = found.toarray() if issparse(found) else np.broadcast_to(found, part.shape).copy()
        dense[part.nonzero()] = -np.inf
        if allowed is not None:
            dense[allowed[first : first + block].toarray() == 0] = -np.inf
        # All items as good as the k-th best are candidates: k of them, and ties.
        kth_best = np.partition(dense, items - k, axis=1)[:, [items - k]]
        rows, candidates = np.nonzero((dense >= kth_best) & (dense > -np.inf))
        # A stable sort by user and score; equal scores stay in the order of the item indices.
        order = np.lexsort((-dense[rows, candidates], rows))
        ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = ranks < k
        ranking[first + rows[best], ranks[best]] = candidates[order][best]
        advance(part.shape[0])
    return ranking
