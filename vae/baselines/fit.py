"""The baselines of ``--baselines``, fitted to the training users of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.baselines.best_unseen import rank_by
from vae.baselines.ease import Ease, choose_lambda
from vae.baselines.itemknn import item_similarities
from vae.baselines.popularity import recommend_popular
from vae.load.dataset import Dataset
from vae.metrics.ranking import MAX_CUTOFF
from vae.utils.console import Progress, silent

Ranker = Callable[[csr_matrix, Callable[[int], object]], NDArray[np.int64]]
"""Returns the (B, K) ranking of (B, I) histories, -1 where nothing is left to recommend; the second
argument takes the number of users of each batch that is done."""


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
    names: Sequence[str],
    dataset: Dataset,
    ease_lambda: float | None,
    progress: Progress = silent,
) -> dict[str, Baseline]:
    """Fit baselines to the training users.

    Args:
        names: of ``config.BASELINES``.
        dataset: prepared data set.
        ease_lambda: lambda of EASE; None to choose it on the validation users.
        progress: shows how far the fits are.
    """
    fit: dict[str, Callable[[], Baseline]] = {
        "popularity": lambda: Baseline(
            lambda histories, _: recommend_popular(dataset.train, histories, MAX_CUTOFF)
        ),
        "itemknn": lambda: _linear(item_similarities(dataset.train, progress=progress)),
        "ease": lambda: _ease(dataset, ease_lambda, progress),
    }
    return {name: fit[name]() for name in names}


def _ease(dataset: Dataset, ease_lambda: float | None, progress: Progress) -> Baseline:
    ease = Ease(dataset.train, progress)
    lambda_ = choose_lambda(ease, dataset.validation) if ease_lambda is None else ease_lambda
    return _linear(ease.item_weights(lambda_), {"ease_lambda": lambda_})


def _linear(
    weights: csr_matrix | NDArray[np.float32], settings: Mapping[str, float] | None = None
) -> Baseline:
    """Return the baseline whose scores are ``histories @ weights``."""
    return Baseline(
        lambda histories, advance: rank_by(lambda part: part @ weights, histories, advance=advance),
        settings or {},
    )
