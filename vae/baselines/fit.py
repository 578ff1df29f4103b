"""The baselines of ``--baselines``, fitted to the training users of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from scipy.sparse import csr_matrix

from vae.load.dataset import Dataset
from vae.utils.console import Progress, silent


class Baseline(NamedTuple):
    """A fitted baseline.

    Attributes:
        scores: returns the scores of (B, I) histories, as ``best_unseen`` takes them.
        settings: chosen or given hyperparameters, by their log keys.
    """

    scores: Callable[[csr_matrix], Any]
    settings: Mapping[str, float] = {}


def fit_baselines(
    names: Sequence[str], dataset: Dataset, ease_lambda: float | None, progress: Progress = silent
) -> dict[str, Baseline]:
    """Fit baselines, each by the ``fit`` of the module here that has its name.

    Args:
        names: of ``config.BASELINES``.
        dataset: prepared data set.
        ease_lambda: lambda of EASE; None to choose it on the validation users.
        progress: shows how far the fits are.
    """
    modules = {name: import_module(f"vae.baselines.{name}") for name in names}
    return {name: one.fit(dataset, progress, ease_lambda) for name, one in modules.items()}
