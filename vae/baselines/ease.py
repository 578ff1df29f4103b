"""EASE: a linear item-item model with a closed-form solution (Steck 2019, arXiv:1905.03375).

Shapes: U training users, B users, I items.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csr_matrix

from vae.baselines.best_unseen import rank_by
from vae.errors import UserError
from vae.load.dataset import HeldOut
from vae.metrics.ranking import SELECTION_METRIC, score
from vae.utils.console import Progress, silent

LAMBDAS = (100, 200, 500, 1000, 2000, 5000)
"""Values of lambda to choose from: those of the paper's data sets are 200 to 1,000."""

_BYTES_PER_ELEMENT = 8 + 4 + 4
"""The inverse in float64, the Gram matrix and the item weights in float32."""

_BLOCK = 1024


class Ease:
    """EASE of one training set, for any lambda.

    Args:
        train: (U, I) training matrix.
        progress: shows how far a computation is.
    """

    def __init__(self, train: csr_matrix, progress: Progress = silent) -> None:
        self.progress = progress
        with progress("Counting users that items have in common", train.shape[1], "items") as bar:
            self._gram = _gram(train, bar.update)

    def item_weights(self, lambda_: float) -> NDArray[np.float32]:
        """Return the (I, I) float32 weights: scores of items are ``histories @ weights``.

        With the inverse P of the Gram matrix plus lambda on its diagonal, B_ij = -P_ij / P_jj, and
        0 on the diagonal (section 3.1, equation 8). The inverse is computed in float64.

        Args:
            lambda_: L2 penalty of the weights, positive.
        """
        with self.progress(f"Fitting EASE with lambda {lambda_:g}", 1, "fits"):
            return self._item_weights(lambda_)

    def _item_weights(self, lambda_: float) -> NDArray[np.float32]:
        inverse = self._gram.astype(np.float64)
        diagonal = np.einsum("ii->i", inverse)
        diagonal += lambda_
        # A symmetric matrix is its own transpose, which LAPACK can overwrite.
        factor, _ = lapack.dpotrf(inverse.T, lower=True, clean=False, overwrite_a=True)
        triangle, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
        items = len(triangle)
        scale = (-1 / np.diagonal(triangle)).astype(np.float32)
        weights = np.empty((items, items), np.float32)
        for first in range(0, items, _BLOCK):
            rows = slice(first, min(first + _BLOCK, items))
            block = np.tril(triangle[rows, : rows.stop], first)
            weights[rows, : rows.stop] = block
            weights[: rows.stop, rows] = block.T
            corner = block[:, first:]
            weights[rows, rows] = corner + np.tril(corner, -1).T
        weights *= scale
        np.fill_diagonal(weights, 0)
        return weights


def choose_lambda(ease: Ease, users: HeldOut) -> float:
    """Return the value of ``LAMBDAS`` with the best NDCG@100 on the validation users.

    Args:
        ease: EASE of the training users.
        users: validation users.
    """
    ndcg = {}
    for lambda_ in LAMBDAS:
        weights = ease.item_weights(lambda_)
        with ease.progress(f"Validating EASE with lambda {lambda_}", len(users.user_ids)) as bar:
            ranking = rank_by(
                lambda part: part @ weights,  # noqa: B023, called at once
                users.fold_in,
                advance=bar.update,
            )
        ndcg[lambda_] = score(ranking, users.targets)[SELECTION_METRIC].mean
    return max(ndcg, key=lambda value: np.nan_to_num(ndcg[value]))


def check_ease(items: int, available: int, flag: str) -> None:
    """Check that EASE fits into memory.

    Args:
        items: I.
        available: memory in bytes.
        flag: flag that asks for EASE, for the message.

    Raises:
        UserError: names the memory that is needed and available.
    """
    needed = _BYTES_PER_ELEMENT * items**2
    if needed > available:
        raise UserError(
            f"{flag}: with {items:,} items EASE takes at least {needed / 1e9:.1f} GB of memory, "
            f"and {available / 1e9:.1f} GB are available; leave it out, or raise "
            "--min_users_per_item in prepare_dataset.py."
        )


def _gram(train: csr_matrix, advance: Callable[[int], object]) -> NDArray[np.float32]:
    """Return the (I, I) numbers of users who have both items, exact below 2^24 users."""
    matrix = csr_matrix(train, dtype=np.float32)
    columns = matrix.tocsc()
    transposed = matrix.T.tocsr()
    items = matrix.shape[1]
    gram = np.empty((items, items), np.float32)
    for first in range(0, items, _BLOCK):  # a sparse matrix of them all may take more memory
        block = slice(first, first + _BLOCK)
        gram[:, block] = (transposed @ columns[:, block]).toarray()
        advance(len(gram[0, block]))
    return gram
