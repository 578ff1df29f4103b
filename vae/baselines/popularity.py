"""Recommending what is popular: the baseline that a model has to beat.

It is deterministic, so it also validates a split and its metrics (``google-research/ials`` does the
same).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_USERS_AT_ONCE = 1024


def recommend_popular(train: csr_matrix, fold_in: csr_matrix, k: int) -> NDArray[np.int64]:
    """Each user's k most popular items that are not in the user's history.

    Args:
        train: (U, I) training matrix; an item's popularity is its number of users.
        fold_in: (B, I) histories of the users to recommend for.
        k: recommendations a user.

    Returns:
        (B, min(k, I)) columns, most popular first (ties: lower column first), -1 where the user has
        seen nearly everything.
    """
    popularity = popularity_scores(train)
    by_popularity = np.argsort(-popularity, kind="stable")
    slices = range(0, fold_in.shape[0], _USERS_AT_ONCE)
    rankings = [_first_unseen(by_popularity, fold_in[i : i + _USERS_AT_ONCE], k) for i in slices]
    return np.concatenate(rankings) if rankings else np.empty((0, min(k, len(popularity))), int)


def popularity_scores(train: csr_matrix) -> NDArray[np.float32]:
    """(I,) logarithm of the share of the users that have each item; -inf where nobody has it."""
    users_per_item = np.bincount(train.indices, minlength=train.shape[1])
    with np.errstate(divide="ignore"):
        scores: NDArray[np.float32] = np.log(users_per_item / train.shape[0]).astype(np.float32)
    return scores


def _first_unseen(order: NDArray[np.int64], fold_in: csr_matrix, k: int) -> NDArray[np.int64]:
    """(B, min(k, I)) the first k columns of ``order`` that each user has not seen."""
    longest_history = int(np.diff(fold_in.indptr).max(initial=0))
    candidates = order[: k + longest_history]
    seen = fold_in[:, candidates].toarray() != 0
    unseen_first = np.argsort(seen, axis=1, kind="stable")[:, :k]
    ranking: NDArray[np.int64] = candidates[unseen_first]
    ranking[np.take_along_axis(seen, unseen_first, axis=1)] = -1
    return ranking
