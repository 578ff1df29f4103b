"""A tested model beside other models, on the same users: metrics, differences, exposure.

Shapes: B users, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.metrics.aggregate import Moments, means_and_errors
from vae.metrics.exposure import Exposure
from vae.metrics.history_length import QUARTILES, by_quartile, quartile_bounds
from vae.metrics.ranking import MAX_CUTOFF, METRICS, SELECTION_METRIC, score_users

EXPOSURE_METRICS = tuple(f"{name}@{MAX_CUTOFF}" for name in ("coverage", "gini", "mean_popularity"))
"""Log keys of what is recommended: see ``Exposure``."""

QUARTILE_METRICS = tuple(f"{SELECTION_METRIC}_quartile_{n + 1}" for n in range(QUARTILES))
"""Log keys of NDCG@100 by the length of the history, shortest first."""


@dataclass(frozen=True)
class UserResults:
    """What the rankings of a model give for each user.

    Attributes:
        scores: (B,) float64 scores by each of ``METRICS``, NaN for users without targets.
        exposure: items among the first ``MAX_CUTOFF``.
    """

    scores: Mapping[str, NDArray[np.float64]]
    exposure: Exposure

    @classmethod
    def of(cls, ranking: NDArray[Any], targets: csr_matrix) -> UserResults:
        """Score rankings, see ``score_users``.

        Args:
            ranking: (B, K) item indices, best first, padded with -1.
            targets: (B, I) held-out items of the users.
        """
        exposure = Exposure.of(ranking, targets.shape[1], MAX_CUTOFF)
        return cls(score_users(ranking, targets), exposure)

    @classmethod
    def concatenate(cls, parts: Sequence[UserResults], items: int) -> UserResults:
        """Return the results of the users of all parts, one part after another.

        Args:
            parts: of the same catalogue.
            items: I, also where there are no parts.
        """
        scores = {
            name: np.concatenate([np.empty(0), *(part.scores[name] for part in parts)])
            for name in METRICS
        }
        none = Exposure(np.zeros(items, np.int64))
        return cls(scores, sum((part.exposure for part in parts), none))

    @property
    def metrics(self) -> dict[str, Moments]:
        """Moments of each metric over the users with targets."""
        return {name: Moments.of(scores) for name, scores in self.scores.items()}

    def differences(self, other: UserResults) -> dict[str, Moments]:
        """Return the moments of this model's scores minus another one's, user by user.

        Their standard error is usually much smaller than those of the two means.
        """
        return {name: Moments.of(self.scores[name] - other.scores[name]) for name in METRICS}


@dataclass(frozen=True)
class Comparison:
    """A model and others on the test users.

    Attributes:
        model: results of the model.
        others: results of the baselines by their names.
        titles: titles of the baselines, for the table.
        settings: chosen hyperparameters, by their log keys.
        lengths: (B,) fold-in items of each user.
        users_per_item: (I,) training users of each item.
        seconds: wall time of ranking and scoring by the model.
    """

    model: UserResults
    others: Mapping[str, UserResults]
    titles: Mapping[str, str]
    settings: Mapping[str, float]
    lengths: NDArray[np.int64]
    users_per_item: NDArray[np.int64]
    seconds: float

    @property
    def scored_users(self) -> int:
        """Number of users with targets."""
        return self.model.metrics[SELECTION_METRIC].users

    def summary(self) -> dict[str, float]:
        """Return the metrics for the run's summary by their log keys."""
        values: dict[str, float] = {}
        for name, results in {"test": self.model, **self.others}.items():
            values |= _with_prefix(name, means_and_errors(results.metrics))
            values |= _with_prefix(name, self._exposure(results))
            values |= _with_prefix(name, means_and_errors(self._quartiles(results)))
        for name, results in self.others.items():
            differences = means_and_errors(self.model.differences(results))
            values |= _with_prefix(f"test_minus_{name}", differences)
        counts = {"test_users": self.scored_users, "test_time": self.seconds}
        return values | counts | dict(self.settings)

    def table(self) -> str:
        """Return tables of the metrics, human-readable."""
        columns = {"model": self.model} | {
            self.titles[name]: results for name, results in self.others.items()
        }
        lines = [
            f"Test on {len(self.lengths)} held-out users, {self.scored_users} of them with "
            "targets:",
            *_lines(columns, METRICS, lambda results: self._cells(results.metrics)),
        ]
        if self.others:
            others = {f"- {title}": results for title, results in list(columns.items())[1:]}
            lines += [
                "The model's score minus that of the baseline, user by user:",
                *_lines(others, METRICS, self._difference_cells),
            ]
        return "\n".join(
            [
                *lines,
                f"What is recommended, among the best {MAX_CUTOFF} items of each user:",
                *_lines(columns, EXPOSURE_METRICS, self._exposure_cells),
                f"{SELECTION_METRIC} by the number of items in the history:",
                *_lines(columns, self._ranges(), self._quartile_cells),
            ]
        )

    def _cells(self, metrics: Mapping[str, Moments], sign: str = "") -> list[str]:
        """Mean and standard error of each metric, with or without the sign ``+``."""
        digits = 5 if len(self.others) < 4 else 4  # in 100 columns
        return [
            f"{one.mean:{sign}.{digits}f} ± {one.standard_error:.{digits}f}"
            for one in metrics.values()
        ]

    def _difference_cells(self, other: UserResults) -> list[str]:
        return self._cells(self.model.differences(other), "+")

    def _exposure(self, results: UserResults) -> dict[str, float]:
        """Coverage, Gini index and mean popularity percentile by their log keys."""
        exposure = results.exposure
        popularity = exposure.mean_popularity(self.users_per_item)
        return dict(
            zip(EXPOSURE_METRICS, (exposure.coverage, exposure.gini, popularity), strict=True)
        )

    def _exposure_cells(self, results: UserResults) -> list[str]:
        coverage, gini, popularity = self._exposure(results).values()
        return [f"{coverage:.1%}", f"{gini:.3f}", f"{popularity:.1f}"]

    def _quartiles(self, results: UserResults) -> dict[str, Moments]:
        """Moments of NDCG@100 of each quartile by their log keys."""
        scores = results.scores[SELECTION_METRIC]
        quartiles = by_quartile(scores, self.lengths, quartile_bounds(self.lengths))
        return dict(zip(QUARTILE_METRICS, quartiles, strict=True))

    def _quartile_cells(self, results: UserResults) -> list[str]:
        """Cells of the quartiles that ``_ranges`` names."""
        quartiles = self._quartiles(results)
        return self._cells({name: one for name, one in quartiles.items() if one.users})

    def _ranges(self) -> list[str]:
        """Shortest and longest history of each quartile that has users with targets."""
        bounds = quartile_bounds(self.lengths)
        first = [int(self.lengths.min()), *(bound + 1 for bound in bounds)]
        last = [*bounds, int(self.lengths.max())]
        quartiles = self._quartiles(self.model).values()
        ranges = zip(quartiles, first, last, strict=True)
        return [f"{a} to {b}" for one, a, b in ranges if one.users]


def _with_prefix(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _lines(
    columns: Mapping[str, UserResults],
    names: Sequence[str] | Mapping[str, Any],
    cells: Callable[[UserResults], list[str]],
) -> Iterator[str]:
    """Yield the lines of a table: the titles of the columns, and a row for each name."""
    width = min(20, 80 // len(columns))
    yield f"{'':20}" + "".join(f"{title:>{width}}" for title in columns)
    rows = zip(*(cells(results) for results in columns.values()), strict=True)
    for name, row in zip(names, rows, strict=True):
        yield f"{name:20}" + "".join(f"{cell:>{width}}" for cell in row)
