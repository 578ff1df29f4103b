"""NDCG@k and Recall@k as Liang et al. (2018, arXiv:1802.05814), section 4.2, define them.

Shapes: B users, I items, K recommendations per user.

Both take a ranked list of item indices per user. A list shorter than K is padded with -1, which is
never a hit. The value for a user without targets is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

FloatArray = NDArray[np.float64]
IntArray = NDArray[Any]


class Metric(NamedTuple):
    """A metric of rankings.

    Attributes:
        of_users: takes a ranking, targets and a cutoff as ``ndcg`` does; returns a value per user.
        k: the cutoff.
        colour: of its curve in the report.
    """

    of_users: Callable[[IntArray, csr_matrix, int], FloatArray]
    k: int
    colour: str


def ndcg(ranking: IntArray, targets: csr_matrix, k: int) -> FloatArray:
    """NDCG@k: truncated normalised discounted cumulative gain, with binary relevance.

    DCG@k is the sum over hits at rank r = 1..k of 1 / log2(r + 1). It is divided by the DCG of a
    ranking that puts min(n, k) of the user's n targets first.

    Args:
        ranking: (B, K) item indices, best first, -1 where there is no further recommendation.
        targets: (B, I) held-out items of the users; every stored entry counts as one.
        k: the cutoff, at most K unless the catalogue itself is shorter.

    Returns:
        (B,) float64 values in [0, 1], NaN for users without targets.
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    hits = _hits(ranking[:, :k], targets)
    gains = hits @ discounts[: hits.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    return _ratio(gains, ideal[np.minimum(np.diff(targets.indptr), k)])


def recall(ranking: IntArray, targets: csr_matrix, k: int) -> FloatArray:
    """Recall@k: hits among the first k, divided by min(k, n) for a user with n targets.

    Arguments and result are those of ``ndcg``.
    """
    hits = _hits(ranking[:, :k], targets)
    return _ratio(hits.sum(axis=1), np.minimum(np.diff(targets.indptr), k))


METRICS: Mapping[str, Metric] = {
    "ndcg@100": Metric(ndcg, 100, "#0072b2"),
    "recall@20": Metric(recall, 20, "#d55e00"),
    "recall@50": Metric(recall, 50, "#009e73"),
}
"""The paper's three metrics by their log keys. Their colours are those of Okabe and Ito, which
colour-blind readers can tell apart; the others of them are #cc79a7, #56b4e9 and #e69f00."""

SELECTION_METRIC = "ndcg@100"
"""The metric by which the best checkpoint is chosen."""

MAX_CUTOFF = max(metric.k for metric in METRICS.values())
"""Length that a ranking must have, unless the catalogue itself is shorter."""


def _hits(ranking: IntArray, targets: csr_matrix) -> NDArray[np.bool_]:
    """(B, K) whether each recommendation is a target; -1 never is."""
    users = np.arange(ranking.shape[0])[:, np.newaxis]
    stored = targets[users, np.maximum(ranking, 0)]
    hits: NDArray[np.bool_] = (stored.toarray() != 0) & (ranking >= 0)
    return hits


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> FloatArray:
    """Elementwise quotient, NaN where the denominator is zero."""
    values = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=values, where=denominator > 0)
    return values
