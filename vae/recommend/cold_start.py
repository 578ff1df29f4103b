"""Recommendations to cold-start users: the most popular items that they have not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.baselines.popularity import popularity_scores, recommend_popular


def popular_items(
    train: csr_matrix,
    seen: csr_matrix,
    k: int,
    excluded: NDArray[np.bool_] | None = None,
    allowed: csr_matrix | None = None,
) -> NDArray[np.int64]:
    """Rank each user's k most popular items, with the masks of ``inference_graph.rank``.

    Args:
        train: (U, I) training matrix.
        seen: (B, I) items to mask out.
        k: recommendations per user, K, at most I.
        excluded: (I,) items that nobody gets; None if there are none.
        allowed: (B, I) ones at the only items to rank; None to rank all.

    Returns:
        (B, K) item indices, most popular first, -1 where nothing is left to recommend.
    """
    if allowed is not None:
        return _most_popular_of(allowed, train, seen, k, excluded)
    if excluded is None:
        return recommend_popular(train, seen, k)
    ranking = np.full((seen.shape[0], k), -1)
    items = np.flatnonzero(~excluded)
    if len(items):
        found = recommend_popular(train[:, items], seen[:, items], k)
        ranking[:, : found.shape[1]] = np.where(found < 0, -1, items[found])
    return ranking


def _most_popular_of(
    allowed: csr_matrix,
    train: csr_matrix,
    seen: csr_matrix,
    k: int,
    excluded: NDArray[np.bool_] | None,
) -> NDArray[np.int64]:
    left = (allowed - allowed.multiply(seen)).tocoo()
    is_left = left.data != 0
    if excluded is not None:
        is_left &= ~excluded[left.col]
    users, items = left.row[is_left], left.col[is_left]
    order = np.lexsort((items, -popularity_scores(train)[items], users))
    users, items = users[order], items[order]
    starts = np.searchsorted(users, np.arange(seen.shape[0]))
    ranks = np.arange(len(users)) - starts[users]
    is_best = ranks < k
    ranking = np.full((seen.shape[0], k), -1)
    ranking[users[is_best], ranks[is_best]] = items[is_best]
    return ranking
