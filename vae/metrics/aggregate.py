"""Mean and standard error of a metric over users."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Mean(NamedTuple):
    """Mean of a metric over users.

    Attributes:
        users: number of users with a value.
        mean: NaN without users.
        standard_error: sample standard deviation over the square root of the number of users; NaN
            below two.
    """

    users: int
    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Mean:
        """Mean of (users,) values, without those that are NaN (users without targets)."""
        defined = values[~np.isnan(values)]
        users = len(defined)
        mean = float(defined.mean()) if users else math.nan
        error = float(defined.std(ddof=1)) / math.sqrt(users) if users > 1 else math.nan
        return cls(users, mean, error)


def means_and_errors(metrics: Mapping[str, Mean]) -> dict[str, float]:
    """Return mean and standard error of each metric, by their log keys."""
    means = {name: one.mean for name, one in metrics.items()}
    return means | {f"{name}_se": one.standard_error for name, one in metrics.items()}
