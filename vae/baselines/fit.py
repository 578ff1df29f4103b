"""The baselines of ``--baselines``, fitted to the training users of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.baselines.ease import Ease, choose_lambda
from vae.baselines.itemknn import item_similarities
from vae.baselines.popularity import recommend_popular
from vae.baselines.rank import rank_by
from vae.load.dataset import Dataset
from vae.metrics.ranking import MAX_CUTOFF

Ranker = Callable[[csr_matrix], NDArray[np.int64]]
"""Returns the (B, K) ranking of (B, I) histories, -1 where nothing is left to recommend."""


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        rank: ranks the unseen items of each user.
        settings: chosen or given hyperparameters, by their log keys.
    """

    rank: Ranker
    settings: Mapping[str, float] = field(default_factory=dict)


def fit_baselines(
    names: Sequence[str], dataset: Dataset, ease_lambda: float | None
) -> dict[str, Baseline]:
    """Fit baselines to the training users.

    Args:
        names: of ``config.BASELINES``.
        dataset: prepared data set.
        ease_lambda: lambda of EASE; None to choose it on the validation users.
    """
    fit: dict[str, Callable[[], Baseline]] = {
        "popularity": lambda: Baseline(
            lambda histories: recommend_popular(dataset.train, histories, MAX_CUTOFF)
        ),
        "itemknn": lambda: _linear(item_similarities(dataset.train)),
        "ease": lambda: _ease(dataset, ease_lambda),
    }
    return {name: fit[name]() for name in names}


def _ease(dataset: Dataset, ease_lambda: float | None) -> Baseline:
    ease = Ease(dataset.train)
    lambda_ = choose_lambda(ease, dataset.validation) if ease_lambda is None else ease_lambda
    return _linear(ease.item_weights(lambda_), {"ease_lambda": lambda_})


def _linear(
    weights: csr_matrix | NDArray[np.float32], settings: Mapping[str, float] | None = None
) -> Baseline:
    """Return the baseline whose scores are ``histories @ weights``."""
    return Baseline(
        lambda histories: rank_by(lambda part: part @ weights, histories), settings or {}
    )
