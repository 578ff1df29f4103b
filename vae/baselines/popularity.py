"""Popularity baseline: recommend the items that most training users have.

It is deterministic, so it also validates the split and the metrics, as in ``google-research/ials``.

Shapes: U training users, B users, I items, K recommendations per user.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_CHUNK_USERS = 1024


def recommend_popular(train: csr_matrix, fold_in: csr_matrix, k: int) -> NDArray[np.int64]:
    """Rank each user's k most popular unseen items.

    Args:
        train: (U, I) training matrix; the popularity of an item is its number of users.
        fold_in: (B, I) histories of the users to recommend for.
        k: recommendations per user.

    Returns:
        (B, min(k, I)) item indices, most popular first (ties: lower index first), -1 where nothing
        is left to recommend.
    """
    popularity = popularity_scores(train)
    by_popularity = np.argsort(-popularity, kind="stable")
    chunks = range(0, fold_in.shape[0], _CHUNK_USERS)
    rankings = [_first_unseen(by_popularity, fold_in[i : i + _CHUNK_USERS], k) for i in chunks]
    return np.concatenate(rankings) if rankings else np.empty((0, min(k, len(popularity))), int)


def popularity_scores(train: csr_matrix) -> NDArray[np.float32]:
    """Logarithm of the fraction of users that have each item.

    Args:
        train: (U, I) training matrix.

    Returns:
        (I,) float32 scores, -inf for an item without users.
    """
    with np.errstate(divide="ignore"):
        scores: NDArray[np.float32] = np.log(users_per_item(train) / train.shape[0]).astype(
            np.float32
        )
    return scores


def users_per_item(train: csr_matrix) -> NDArray[np.int64]:
    """(I,) number of users that have each item.

    Args:
        train: (U, I) training matrix.
    """
    return np.bincount(train.indices, minlength=train.shape[1])


def _first_unseen(order: NDArray[np.int64], fold_in: csr_matrix, k: int) -> NDArray[np.int64]:
    """(B, min(k, I)) the first k item indices of ``order`` that each user has not seen."""
    longest_history = int(np.diff(fold_in.indptr).max(initial=0))
    candidates = order[: k + longest_history]
    seen = fold_in[:, candidates].toarray() != 0
    unseen_first = np.argsort(seen, axis=1, kind="stable")[:, :k]
    ranking: NDArray[np.int64] = candidates[unseen_first]
    ranking[np.take_along_axis(seen, unseen_first, axis=1)] = -1
    return ranking
