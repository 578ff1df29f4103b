"""EASE: a linear item-item model with a closed-form solution (Steck 2019, arXiv:1905.03375).

Shapes: U training users, I items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csr_matrix

from vae.baselines.best_unseen import best_unseen
from vae.baselines.fit import Baseline
from vae.baselines.itemknn import common_users
from vae.load.dataset import Dataset, HeldOut
from vae.metrics.ranking import SELECTION_METRIC
from vae.metrics.user_results import UserResults
from vae.utils.console import Progress, silent

LAMBDAS = (100, 200, 500, 1000, 2000, 5000)
"""Values of lambda to choose from: those of the paper's data sets are 200 to 1,000."""

BYTES_PER_ELEMENT = 8 + 4 + 4
"""The inverse in float64, the Gram matrix and the item weights in float32."""


class Ease:
    """EASE of one training set, for any lambda.

    Args:
        train: (U, I) training matrix.
        progress: shows how far a computation is.
        items_per_block: rows of (I, I) matrices that are computed at a time.
    """

    def __init__(
        self, train: csr_matrix, progress: Progress = silent, items_per_block: int = 1024
    ) -> None:
        self.progress = progress
        self._block = items_per_block
        items = train.shape[1]
        self._gram = np.empty((items, items), np.float32)
        with progress("Counting users that items have in common", items, "items") as bar:
            for rows, common in common_users(train, items_per_block):
                self._gram[rows] = common
                bar.update(len(common))

    def item_weights(self, lambda_: float) -> NDArray[np.float32]:
        """Return the (I, I) float32 weights: scores of items are ``histories @ weights``.

        With the inverse P of the Gram matrix plus lambda on its diagonal, B_ij = -P_ij / P_jj, and
        0 on the diagonal (section 3.1, equation 8). The inverse is computed in float64. Lambda is
        the L2 penalty of the weights, positive.
        """
        with self.progress(f"Fitting EASE with lambda {lambda_:g}", 1, "fits"):
            inverse = self._gram.astype(np.float64)
            np.einsum("ii->i", inverse)[:] += lambda_
            # Cholesky, then the inverse, both in place: LAPACK's matrices are column by column, and
            # a symmetric matrix is its own transpose. Only the lower triangle is computed.
            factor, _ = lapack.dpotrf(inverse.T, lower=True, clean=False, overwrite_a=True)
            triangle, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
            scale = (-1 / np.diagonal(triangle)).astype(np.float32)
            weights = self._mirrored(triangle)
            weights *= scale
            np.fill_diagonal(weights, 0)
            return weights

    def _mirrored(self, triangle: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the whole (I, I) symmetric matrix, float32, of its lower triangle."""
        items = len(triangle)
        whole = np.empty((items, items), np.float32)
        for first in range(0, items, self._block):
            rows = slice(first, min(first + self._block, items))
            # The block's rows up to the diagonal, and the same mirrored as columns.
            block = np.tril(triangle[rows, : rows.stop], first)
            whole[rows, : rows.stop] = block
            whole[: rows.stop, rows] = block.T
            # The square on the diagonal: its own upper triangle is missing in both.
            corner = block[:, first:]
            whole[rows, rows] = corner + np.tril(corner, -1).T
        return whole


def fit(dataset: Dataset, progress: Progress, ease_lambda: float | None) -> Baseline:
    """Return the baseline for a lambda; None to choose it on the validation users."""
    ease = Ease(dataset.train, progress)
    lambda_ = choose_lambda(ease, dataset.validation) if ease_lambda is None else ease_lambda
    weights = ease.item_weights(lambda_)
    return Baseline(lambda histories: histories @ weights, {"ease_lambda": lambda_})


def choose_lambda(ease: Ease, users: HeldOut) -> float:
    """Return the value of ``LAMBDAS`` with the best NDCG@100 on the validation users."""

    def ndcg(lambda_: float) -> float:
        weights = ease.item_weights(lambda_)
        with ease.progress(f"Validating EASE with lambda {lambda_}", len(users.user_ids)) as bar:
            ranking = best_unseen(lambda part: part @ weights, users.fold_in, advance=bar.update)
        value = UserResults.of(ranking, users.targets).metrics[SELECTION_METRIC].mean
        return float(np.nan_to_num(value))

    return max(LAMBDAS, key=ndcg)
