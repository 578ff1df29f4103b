"""The baselines of ``--baselines``, fitted to the training users of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy.sparse import csr_matrix

from vae.load.dataset import Dataset
from vae.utils.console import Progress

if TYPE_CHECKING:
    from vae.baselines.ease import Ease


class Baseline(NamedTuple):
    """A fitted baseline.

    Attributes:
        scores: returns the scores of (B, I) histories, as ``best_unseen`` takes them.
        settings: chosen or given hyperparameters, by their log keys.
    """

    scores: Callable[[csr_matrix], Any]
    settings: Mapping[str, float] = {}


def fit_baselines(
    names: Sequence[str], dataset: Dataset, find_ease: Callable[[], Ease], progress: Progress
) -> dict[str, Baseline]:
    """Fit some of ``config.BASELINES``, each by the ``fit`` of the module here that has its name.

    ``find_ease`` returns EASE of the data set.
    """
    modules = {name: import_module(f"vae.baselines.{name}") for name in names}
    return {name: one.fit(dataset, progress, find_ease) for name, one in modules.items()}
