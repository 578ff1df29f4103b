"""Which items are recommended: coverage of the catalogue, concentration and popularity.

Shapes: B users, I items, K recommendations per user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Exposure:
    """How often each item is recommended.

    The exposures of two shards of the users add up to that of all users, so the result does not
    depend on the number of workers.

    Attributes:
        counts: (I,) int64 number of users to whom each item is recommended.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, ranking: NDArray[Any], items: int, k: int) -> Exposure:
        """Count the first k recommendations of each user.

        Args:
            ranking: (B, K) item indices, best first, -1 where there is no further recommendation.
            items: I.
            k: the cutoff.
        """
        recommended = ranking[:, :k]
        return cls(np.bincount(recommended[recommended >= 0], minlength=items))

    def __add__(self, other: Exposure) -> Exposure:
        return Exposure(self.counts + other.counts)

    @property
    def coverage(self) -> float:
        """Fraction of the items that somebody is recommended, 0 to 1; NaN without items.

        Catalogue coverage of Ge et al. (2010, "Beyond accuracy: evaluating recommender systems by
        coverage and serendipity").
        """
        items = len(self.counts)
        return np.count_nonzero(self.counts) / items if items else math.nan

    @property
    def gini(self) -> float:
        """Gini index of the counts: 0 if all are equal, 1 if a single item has all of them.

        With the n counts in ascending order, the sum of (2 j - n - 1) p_j over j = 1..n, divided by
        n - 1, where p_j is the fraction of all recommendations (Shani and Gunawardana 2011,
        "Evaluating recommendation systems", section on coverage). NaN without recommendations, and
        below two items.
        """
        items, total = len(self.counts), self.counts.sum()
        if items < 2 or not total:
            return math.nan
        weights = 2 * np.arange(1, items + 1) - items - 1
        return float(weights @ np.sort(self.counts) / total / (items - 1))

    def values(self, users_per_item: NDArray[np.int64]) -> tuple[float, float, float]:
        """Return coverage, Gini index and mean popularity percentile."""
        return self.coverage, self.gini, self.mean_popularity(users_per_item)

    def mean_popularity(self, users_per_item: NDArray[np.int64]) -> float:
        """Return the mean popularity percentile of the recommendations, 0 to 100.

        An item's percentile is the percentage of the items that are less popular, and half of those
        that are as popular, itself included: 50 on average over the catalogue. NaN without
        recommendations.

        Args:
            users_per_item: (I,) number of training users of each item.
        """
        total = self.counts.sum()
        if not total:
            return math.nan
        return float(self.counts @ popularity_percentiles(users_per_item) / total)


def popularity_percentiles(users_per_item: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (I,) percentile of each item's popularity, above 0 and below 100.

    Args:
        users_per_item: (I,) number of training users of each item.
    """
    ordered = np.sort(users_per_item)
    below = np.searchsorted(ordered, users_per_item, side="left")
    not_above = np.searchsorted(ordered, users_per_item, side="right")
    percentiles: NDArray[np.float64] = 50 * (below + not_above) / len(ordered)
    return percentiles
