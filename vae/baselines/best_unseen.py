"""Rankings by the scores of a baseline: a user's best items without those of the history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from vae.metrics.ranking import MAX_CUTOFF

_USERS = 1024


def rank_by(
    scores: Callable[[csr_matrix], Any],
    histories: csr_matrix,
    k: int = MAX_CUTOFF,
    advance: Callable[[int], object] = lambda users: None,
) -> NDArray[np.int64]:
    """Rank each user's k best unseen items.

    Args:
        scores: returns the (B, I) scores of (B, I) histories, dense or sparse.
        histories: (B, I) items that the users have; any stored entry counts as one.
        k: recommendations per user.
        advance: takes the number of users of each batch that is done.

    Returns:
        (B, min(k, I)) item indices, best first (ties: lower index first), -1 where nothing is left
        to recommend.
    """
    users, items = histories.shape
    rankings = []
    for first in range(0, users, _USERS):
        chunk = histories[first : first + _USERS]
        rankings.append(_best_unseen(scores(chunk.astype(np.float32)), chunk, k))
        advance(chunk.shape[0])
    return np.concatenate(rankings) if rankings else np.empty((0, min(k, items)), np.int64)


def _best_unseen(scores: Any, seen: csr_matrix, k: int) -> NDArray[np.int64]:
    dense = scores.toarray() if issparse(scores) else np.array(scores)
    dense[seen.nonzero()] = -np.inf
    ranking: NDArray[np.int64] = np.argsort(-dense, axis=1, kind="stable")[:, :k]
    ranking[np.isneginf(np.take_along_axis(dense, ranking, axis=1))] = -1
    return ranking
