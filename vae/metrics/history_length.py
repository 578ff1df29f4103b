"""A metric by the length of the users' histories: one value for each quartile of the lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae.metrics.aggregate import Moments

QUARTILES = 4

Bounds = tuple[int, int, int]
"""Longest history of each quartile but the last."""


def quartile_bounds(lengths: NDArray[Any]) -> Bounds:
    """Return the quartiles of the lengths of all held-out users, at least one.

    A quartile is a length that occurs: the least one that a quarter, a half, three quarters of the
    users do not exceed.

    Args:
        lengths: (users,) fold-in items of each user.
    """
    quarter, half, three_quarters = np.quantile(
        lengths, [0.25, 0.5, 0.75], method="inverted_cdf"
    ).tolist()
    return quarter, half, three_quarters


def by_quartile(
    scores: NDArray[np.float64], lengths: NDArray[Any], bounds: Bounds
) -> tuple[Moments, ...]:
    """Return the moments of a metric for each quartile, shortest histories first.

    Users with equally long histories are in the same quartile, so one may have more users than
    another, or none. The moments of two shards of the users add up quartile by quartile.

    Args:
        scores: (B,) scores, NaN for users without targets.
        lengths: (B,) fold-in items of each user.
        bounds: quartiles of the lengths of all users, of every shard.
    """
    quartile = np.searchsorted(bounds, lengths, side="left")
    return tuple(Moments.of(scores[quartile == number]) for number in range(QUARTILES))
