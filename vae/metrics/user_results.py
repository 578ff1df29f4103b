"""What rankings give for each user, and a model beside others on the same users.

Shapes: B users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.metrics.aggregate import Mean, means_and_errors
from vae.metrics.exposure import coverage, gini, mean_popularity, recommendation_counts
from vae.metrics.ranking import MAX_CUTOFF, METRICS, SELECTION_METRIC

EXPOSURE_METRICS = tuple(f"{name}@{MAX_CUTOFF}" for name in ("coverage", "gini", "mean_popularity"))
"""Log keys of what is recommended, see ``vae.metrics.exposure``."""

QUARTILE_METRICS = tuple(f"{SELECTION_METRIC}_quartile_{number}" for number in (1, 2, 3, 4))
"""Log keys of NDCG@100 by the length of the history, shortest first."""


@dataclass(frozen=True)
class UserResults:
    """What the rankings of a model give for each user.

    Attributes:
        values: (B,) float64 values of each of ``METRICS``, NaN for users without targets.
        counts: (I,) users to whom each item is recommended among the first ``MAX_CUTOFF``.
    """

    values: Mapping[str, NDArray[np.float64]]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, ranking: NDArray[Any], targets: csr_matrix) -> UserResults:
        """Evaluate rankings as ``ndcg`` takes them, with K >= min(``MAX_CUTOFF``, I)."""
        values = {name: one.of_users(ranking, targets, one.k) for name, one in METRICS.items()}
        return cls(values, recommendation_counts(ranking, targets.shape[1], MAX_CUTOFF))

    @classmethod
    def concatenate(cls, parts: Sequence[UserResults], items: int) -> UserResults:
        """Return the results of the users of all parts, if any, for a catalogue of I items."""
        values = {
            name: np.concatenate([np.empty(0), *(part.values[name] for part in parts)])
            for name in METRICS
        }
        return cls(values, sum((part.counts for part in parts), np.zeros(items, np.int64)))

    @property
    def metrics(self) -> dict[str, Mean]:
        """Mean of each metric over the users with targets."""
        return {name: Mean.of(values) for name, values in self.values.items()}

    def differences(self, other: UserResults) -> dict[str, Mean]:
        """Return the means of this model's metrics minus another one's, user by user.

        Their standard error is usually much smaller than those of the two means.
        """
        return {name: Mean.of(self.values[name] - other.values[name]) for name in METRICS}

    def quartiles(self, lengths: NDArray[Any]) -> dict[str, Mean]:
        """Return the mean NDCG@100 of each quartile of the (B,) lengths, by their log keys.

        Users with equally long histories are in the same quartile, so one may have more users than
        another, or none.
        """
        values = self.values[SELECTION_METRIC]
        quartile = np.searchsorted(quartile_bounds(lengths), lengths, side="left")
        return {
            name: Mean.of(values[quartile == number])
            for number, name in enumerate(QUARTILE_METRICS)
        }


def quartile_bounds(lengths: NDArray[Any]) -> list[int]:
    """Return the longest history of each quartile but the last, of (B,) lengths.

    It is a length that occurs: the least one that a quarter, a half, three quarters of the users do
    not exceed.
    """
    bounds: list[int] = np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf").tolist()
    return bounds


@dataclass(frozen=True)
class Comparison:
    """A model and others on the test users.

    Attributes:
        model: results of the model.
        others: results of the others by their names.
        settings: chosen hyperparameters, by their log keys.
        lengths: (B,) fold-in items of each user.
        users_per_item: (I,) training users of each item.
        seconds: wall time of ranking and scoring by the model.
    """

    model: UserResults
    others: Mapping[str, UserResults]
    settings: Mapping[str, float]
    lengths: NDArray[np.int64]
    users_per_item: NDArray[np.int64]
    seconds: float

    def summary(self) -> dict[str, float]:
        """Return the metrics for the run's summary by their log keys."""
        values: dict[str, float] = {}
        for name, results in {"test": self.model, **self.others}.items():
            counts = results.counts
            exposure = coverage(counts), gini(counts), mean_popularity(counts, self.users_per_item)
            values |= _with_prefix(
                name,
                means_and_errors(results.metrics)
                | dict(zip(EXPOSURE_METRICS, exposure, strict=True))
                | means_and_errors(results.quartiles(self.lengths)),
            )
        for name, results in self.others.items():
            differences = means_and_errors(self.model.differences(results))
            values |= _with_prefix(f"test_minus_{name}", differences)
        users = self.model.metrics[SELECTION_METRIC].users
        return values | {"test_users": users, "test_time": self.seconds} | dict(self.settings)


def _with_prefix(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}
