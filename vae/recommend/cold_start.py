"""Recommendations to cold-start users: the most popular items that they have not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.baselines.best_unseen import best_unseen
from vae.baselines.popularity import popularity_scores


def popular_items(
    train: csr_matrix,
    seen: csr_matrix,
    k: int,
    excluded: NDArray[np.bool_] | None = None,
    allowed: csr_matrix | None = None,
) -> NDArray[np.int64]:
    """Rank each user's k most popular items.

    Args:
        train: (U, I) training matrix.
        seen: (B, I) items to mask out.
        k: recommendations per user, K, at most I.
        excluded: (I,) items that nobody gets; None if there are none.
        allowed: (B, I) ones at the only items to rank; None to rank all.

    Returns:
        (B, K) item indices, most popular first, -1 where nothing is left to recommend.
    """
    popularity = popularity_scores(train)
    if excluded is not None:
        popularity[excluded] = -np.inf
    return best_unseen(lambda _: popularity, seen, k, allowed)
