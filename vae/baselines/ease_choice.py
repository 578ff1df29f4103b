"""Choice of the hyperparameters of EASE on the validation users."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from vae.baselines.best_unseen import best_unseen
from vae.baselines.ease import Ease
from vae.errors import UserError
from vae.load.dataset import Dataset, HeldOut
from vae.metrics.ranking import SELECTION_METRIC
from vae.metrics.user_results import UserResults
from vae.utils.run_log import RunLog

LAMBDAS = (10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000)
DROPOUTS = (0, 0.3, 0.5, 0.6)
"""Values to choose from."""

MAX_FITS = 10
"""Fits of a choice: those of the search and, unless its last one was the best, the best again."""


def fit_ease(dataset: Dataset, lambda_: float | None, dropout: float | None, log: RunLog) -> Ease:
    """Return EASE of a data set, with what is None chosen on the validation users.

    Raises:
        UserError: float32 is not precise enough for so small a lambda.
    """
    grid = (LAMBDAS if lambda_ is None else (lambda_,), DROPOUTS if dropout is None else (dropout,))
    if lambda_ is not None and dropout is not None:
        return _fit(dataset.train, lambda_, dropout, log)
    last: list[Ease] = []

    def ndcg(lambda_: float, dropout: float) -> float:
        last.clear()  # two of them may not fit into memory
        try:
            last.append(_fit(dataset.train, lambda_, dropout, log))
        except UserError as error:
            log.say(str(error))
            return -math.inf
        value = validate(last[0], last[0].scores, dataset.validation, log)
        log.say(f"EASE with {last[0].description}: validation {SELECTION_METRIC} {value:.5f}.")
        return value

    lambda_, dropout = climb(ndcg, grid)
    if last and last[0].settings == {"ease_lambda": lambda_, "ease_dropout": dropout}:
        return last[0]
    last.clear()
    return _fit(dataset.train, lambda_, dropout, log)


def _fit(train: csr_matrix, lambda_: float, dropout: float, log: RunLog) -> Ease:
    title = f"Fitting EASE with lambda {lambda_:g}, dropout {dropout:g}"
    with log.progress(title, 4 * min(train.shape), "rows") as bar:
        return Ease(train, lambda_, dropout, bar.update)


def validate(ease: Ease, scores: Callable[[csr_matrix], Any], users: HeldOut, log: RunLog) -> float:
    """Return NDCG@100 of the scores of EASE or of a part of its weights, 0 without any target."""
    with log.progress(f"Validating EASE with {ease.description}", len(users.user_ids)) as bar:
        ranking = best_unseen(scores, users.fold_in, advance=bar.update)
    value = UserResults.of(ranking, users.targets).metrics[SELECTION_METRIC].mean
    return float(np.nan_to_num(value))


def climb(value: Callable[[float, float], float], grid: Sequence[Sequence[float]]) -> list[float]:
    """Return the point of a grid where hill climbing from its middle ends.

    Along the first axis by two values at a time, then along the second one, then along both again,
    by one value: as far as the function rises. It is computed at ``MAX_FITS`` - 1 points at most.
    """
    values: dict[tuple[int, ...], float] = {}

    def at(point: tuple[int, ...]) -> float:
        inside = all(0 <= i < len(axis) for i, axis in zip(point, grid, strict=True))
        if point not in values and inside and len(values) < MAX_FITS - 1:
            values[point] = value(*(axis[i] for i, axis in zip(point, grid, strict=True)))
        return values.get(point, -math.inf)

    best = (len(grid[0]) // 2, len(grid[1]) // 2)
    for move in ((2, 0), (0, 1), (1, 0), (0, 1)):
        for sign in (1, -1):
            while at(further := (best[0] + sign * move[0], best[1] + sign * move[1])) > at(best):
                best = further
    return [axis[i] for i, axis in zip(best, grid, strict=True)]
