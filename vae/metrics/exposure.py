"""Which items are recommended: coverage of the catalogue, concentration and popularity.

All are functions of the (I,) counts of the users to whom each of I items is recommended. The counts
of two shards of the users add up to those of all, so nothing depends on the number of workers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def recommendation_counts(ranking: NDArray[Any], items: int, k: int) -> NDArray[np.int64]:
    """Return the (I,) number of users to whom each item is recommended.

    Args:
        ranking: (B, K) item indices, best first, -1 where there is no further recommendation.
        items: I.
        k: recommendations that count, the first of each user.
    """
    recommended = ranking[:, :k]
    return np.bincount(recommended[recommended >= 0], minlength=items)


def coverage(counts: NDArray[np.int64]) -> float:
    """Return the fraction of the items that somebody is recommended, 0 to 1.

    Catalogue coverage of Ge et al. (2010, "Beyond accuracy: evaluating recommender systems by
    coverage and serendipity").
    """
    return np.count_nonzero(counts) / len(counts)


def gini(counts: NDArray[np.int64]) -> float:
    """Return the Gini index of the counts: 0 if all are equal, 1 if one item has all of them.

    With the n counts in ascending order, the sum of (2 j - n - 1) p_j over j = 1..n, divided by
    n - 1, where p_j is the fraction of all recommendations (Shani and Gunawardana 2011, "Evaluating
    recommendation systems", section on coverage). NaN without recommendations, and below two items.
    """
    items, total = len(counts), counts.sum()
    if items < 2 or not total:
        return math.nan
    weights = 2 * np.arange(1, items + 1) - items - 1
    return float(weights @ np.sort(counts) / total / (items - 1))


def mean_popularity(counts: NDArray[np.int64], users_per_item: NDArray[np.int64]) -> float:
    """Return the mean popularity percentile of the recommendations, 0 to 100.

    An item's percentile is the percentage of the items that are less popular, and half of those
    that are as popular, itself included: 50 on average over the catalogue. NaN without
    recommendations.

    Args:
        counts: (I,) recommendations of each item.
        users_per_item: (I,) number of training users of each item.
    """
    total = counts.sum()
    if not total:
        return math.nan
    _, level, items = np.unique(users_per_item, return_inverse=True, return_counts=True)
    percentiles = 50 * (2 * np.cumsum(items) - items) / len(counts)  # of each level of popularity
    return float(counts @ percentiles[level] / total)
