"""NDCG@k and Recall@k as Liang et al. (2018, arXiv:1802.05814), section 4.2, define them.

Shapes: B users, I items, K recommendations a user.

Both take a ranked list of columns per user. A list shorter than K is filled up with -1, which
never hits. A user with nothing to rank has no score: NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.metrics.aggregate import Moments

FloatArray = NDArray[np.float64]
IntArray = NDArray[Any]

LIANG_METRICS = ("ndcg@100", "recall@20", "recall@50")
"""The paper's three figures, under the names the logs use."""

LONGEST_CUTOFF = 100
"""The largest k among ``LIANG_METRICS``: shorter rankings would falsify NDCG@100."""


def ndcg(ranking: IntArray, relevant: csr_matrix, k: int) -> FloatArray:
    """Truncated normalised discounted cumulative gain, with binary relevance.

    DCG@k is the sum over hits at rank r = 1..k of 1 / log2(r + 1). It is divided by the DCG of a
    ranking that puts min(n, k) of the user's n relevant items first.

    Args:
        ranking: (B, K) columns, best first, -1 where there is no further recommendation.
        relevant: (B, I) the items to find, every stored entry counts as one.
        k: the cutoff, at most K unless the catalogue itself is shorter.

    Returns:
        (B,) scores in [0, 1], NaN for users without relevant items.
    """
    depth = max(k, 1)
    discounts = 1.0 / np.log2(np.arange(2, depth + 2))
    hits = _hits(ranking[:, :k], relevant)
    gains = hits @ discounts[: hits.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    return _ratio(gains, ideal[np.minimum(_relevant_counts(relevant), k)])


def recall(ranking: IntArray, relevant: csr_matrix, k: int) -> FloatArray:
    """Hits among the first k, divided by min(k, n) for a user with n relevant items.

    Args:
        ranking: (B, K) columns, best first, -1 where there is no further recommendation.
        relevant: (B, I) the items to find, every stored entry counts as one.
        k: the cutoff, at most K unless the catalogue itself is shorter.

    Returns:
        (B,) scores in [0, 1], NaN for users without relevant items.
    """
    hits = _hits(ranking[:, :k], relevant)
    return _ratio(hits.sum(axis=1), np.minimum(_relevant_counts(relevant), k))


def liang_metrics(ranking: IntArray, relevant: csr_matrix) -> dict[str, Moments]:
    """The three metrics of ``LIANG_METRICS`` over the users who have something to rank.

    Args:
        ranking: (B, K) columns, best first, K >= ``LONGEST_CUTOFF`` or all the items there are.
        relevant: (B, I) the items to find.

    Raises:
        ValueError: the ranking is too short for the metrics' cutoffs.
    """
    if ranking.shape[1] < min(LONGEST_CUTOFF, relevant.shape[1]):
        raise ValueError(f"a ranking of {ranking.shape[1]} items falsifies ndcg@{LONGEST_CUTOFF}")
    return {
        "ndcg@100": Moments.of(ndcg(ranking, relevant, 100)),
        "recall@20": Moments.of(recall(ranking, relevant, 20)),
        "recall@50": Moments.of(recall(ranking, relevant, 50)),
    }


def _hits(ranking: IntArray, relevant: csr_matrix) -> NDArray[np.bool_]:
    """(B, K) whether each recommendation is relevant; -1 never is."""
    if relevant.nnz == 0 or ranking.size == 0:
        return np.zeros(ranking.shape, dtype=bool)
    users = np.arange(ranking.shape[0])[:, np.newaxis]
    stored = relevant[users, np.maximum(ranking, 0)]
    hits: NDArray[np.bool_] = (stored.toarray() != 0) & (ranking >= 0)
    return hits


def _relevant_counts(relevant: csr_matrix) -> NDArray[np.int64]:
    """(B,) relevant items a user."""
    return np.diff(relevant.indptr).astype(np.int64)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> FloatArray:
    """Element by element, NaN where the denominator is zero."""
    scores = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=scores, where=denominator > 0)
    return scores
