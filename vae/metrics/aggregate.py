"""Mean and standard error of a metric, from moments that add up over workers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of a metric over users.

    The moments of two shards of the users add up to those of all users, so the result does not
    depend on the number of workers.

    Attributes:
        users: number of users with a value.
        total: sum of the values.
        total_squares: sum of the squared values.
    """

    users: int = 0
    total: float = 0.0
    total_squares: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """Moments of (users,) values, without those that are NaN (users without targets)."""
        defined = values[~np.isnan(values)]
        return cls(len(defined), float(defined.sum()), float(np.square(defined).sum()))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.users + other.users,
            self.total + other.total,
            self.total_squares + other.total_squares,
        )

    @property
    def mean(self) -> float:
        """Mean over users; NaN without users."""
        return self.total / self.users if self.users else math.nan

    @property
    def standard_error(self) -> float:
        """Sample standard deviation over the square root of the number of users; NaN below two."""
        if self.users < 2:
            return math.nan
        squares = self.total_squares - self.total * self.total / self.users
        return math.sqrt(max(squares, 0.0) / (self.users - 1) / self.users)


def means_and_errors(metrics: Mapping[str, Moments]) -> dict[str, float]:
    """Return mean and standard error of each metric, by their log keys."""
    means = {name: moments.mean for name, moments in metrics.items()}
    errors = {f"{name}_se": moments.standard_error for name, moments in metrics.items()}
    return means | errors
