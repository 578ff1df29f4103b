"""EASE: a linear item-item model with a closed-form solution, and its variant with dropout.

EASE is Steck 2019 (arXiv:1905.03375); with dropout it is EDLAE: Steck 2020, "Autoencoders that
don't overfit towards the identity" (NeurIPS).

Shapes: U training users, I items, N = min(U, I), B users to score.

With the training matrix X and D = diag(lambda + n_i p / (1 - p)), n_i the users of item i and p the
dropout, the weights are W = 1 - P / diag(P) by columns, P = (X'X + D)^-1. In terms of
Z = X D^-1/2, P = D^-1/2 Q D^-1/2 with Q = (1 + Z'Z)^-1 = 1 - Z' (1 + ZZ')^-1 Z (Woodbury). Only the
inverse of the smaller one of 1 + Z'Z and 1 + ZZ' is computed; their eigenvalues are at least 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity

from vae.baselines.fit import Baseline
from vae.baselines.gram import Matrix, blocks_of, empty, invert, one_plus_gram
from vae.baselines.popularity import users_per_item
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.utils.console import Progress

BLOCK = 512
"""Rows of dense matrices that are computed at a time."""

_MAX_ERROR = 1e-2
"""Root mean square error of the scores of a history of all items, with random signs."""

MIN_WEIGHTS = 100
"""Minimum number of weights of each item in a blend."""

_USABLE = 3 / 4
"""Fraction of the memory for EASE; the rest is for the model, the program and a batch's scores."""


class Ease:
    """EASE of one training set.

    Args:
        train: (U, I) training matrix, in which each item has a user.
        lambda_: L2 penalty of the weights, positive.
        dropout: probability with which an item of the input is dropped, below 1.
        advance: takes numbers of rows that are done, N of them four times.
        block: rows of dense matrices that are computed at a time.

    Attributes:
        settings: lambda and the dropout, by their log keys.

    Raises:
        UserError: float32 is not precise enough for so small a lambda.
    """

    def __init__(
        self,
        train: csr_matrix,
        lambda_: float,
        dropout: float = 0,
        advance: Callable[[int], object] = lambda rows: None,
        block: int = BLOCK,
    ) -> None:
        self.settings = {"ease_lambda": float(lambda_), "ease_dropout": float(dropout)}
        self.description = f"lambda {lambda_:g}, dropout {dropout:g}"
        self._block = block
        self._weights: Matrix | None = None
        penalties = lambda_ + users_per_item(train) * dropout / (1 - dropout)
        self._root = np.sqrt(penalties).astype(np.float32)
        self._z = _with_values(train, 1 / self._root[train.indices])
        self._by_users = train.shape[0] < train.shape[1]
        factor = self._z.T.tocsr() if self._by_users else self._z
        self._inverse = one_plus_gram(factor, block, advance)
        with suppress(np.linalg.LinAlgError):
            invert(self._inverse, block, advance)
        self._diagonal = self._diagonal_of_q()
        self._check()

    @np.errstate(all="ignore")
    def _check(self) -> None:
        """Estimate the errors of scores by one step of iterative refinement."""
        random = np.random.default_rng(0)
        signs = random.choice(np.array([-1, 1], np.float32), len(self._root))

        def q_times(vector: Matrix) -> Any:
            if not self._by_users:
                return self._inverse @ vector
            return vector - self._z.T @ (self._inverse @ (self._z @ vector))

        product = q_times(signs)
        residual = signs - (product + self._z.T @ (self._z @ product))
        errors = q_times(residual) / self._diagonal
        if not (np.sqrt(np.mean(errors**2)) < _MAX_ERROR and self._diagonal.min() > 0):
            raise UserError(
                f"--ease_lambda {self.settings['ease_lambda']:g}: too small for the precision of "
                "float32 on this data set; raise it, or leave it out to have it chosen."
            )

    def _diagonal_of_q(self) -> Any:
        """Return the (I,) diagonal of Q."""
        if not self._by_users:
            return np.diagonal(self._inverse).copy()
        transposed = self._z.T.tocsr()
        diagonal = np.ones(transposed.shape[0], np.float32)
        for rows in blocks_of(len(diagonal), self._block):
            part = transposed[rows]
            diagonal[rows] -= np.ravel(part.multiply(part @ self._inverse).sum(axis=1))
        return diagonal

    def scores(self, histories: csr_matrix) -> Any:
        """Return the (B, I) scores of (B, I) float32 histories, their product with the weights."""
        if self._weights is not None:
            return histories @ self._weights
        scaled = _with_values(histories, histories.data / self._root[histories.indices])
        own = histories.data
        if self._by_users:
            common = scaled @ self._z.T
            # All cores multiply a dense matrix, one a sparse one.
            is_dense = common.nnz > common.shape[0] * common.shape[1] / 50
            scores = (common.toarray() if is_dense else common) @ self._inverse @ self._z
            own = own * (1 - 1 / self._diagonal[histories.indices])
        else:
            scores = -(scaled @ self._inverse)
        scores *= self._root / self._diagonal
        rows = np.repeat(np.arange(len(scores)), np.diff(histories.indptr))
        scores[rows, histories.indices] += own
        return scores

    def item_weights(self, advance: Callable[[int], object] = lambda items: None) -> Matrix:
        """Return the (I, I) weights, zero on the diagonal; from now on scores come from them.

        If N is I, they take the place of the inverse. ``advance`` takes numbers of items.
        """
        if self._weights is None:
            items = self._z.shape[1]
            weights = empty(items, items) if self._by_users else self._inverse
            for rows, block in self._weights_by_rows(advance):
                weights[rows] = block
            self._weights = weights
            del self._inverse
        return self._weights

    def largest_weights(
        self, count: int, advance: Callable[[int], object] = lambda items: None
    ) -> tuple[Matrix, NDArray[np.int32]]:
        """Return the (I, count) weights of each row with the largest magnitudes, and their columns.

        ``advance`` takes numbers of items.
        """
        items = self._z.shape[1]
        values, indices = empty(items, count), empty(items, count).view(np.int32)
        for rows, block in self._weights_by_rows(advance):
            indices[rows] = np.argpartition(-np.abs(block), count - 1, axis=1)[:, :count]
            values[rows] = np.take_along_axis(block, indices[rows], axis=1)
        return values, indices

    def _weights_by_rows(self, advance: Callable[[int], object]) -> Iterator[tuple[slice, Matrix]]:
        """Yield blocks of rows of the (I, I) weights."""
        items = self._z.shape[1]
        for rows in blocks_of(items, self._block):
            weights = self.scores(identity(items, np.float32, "csr")[rows])
            np.fill_diagonal(weights[:, rows], 0)
            yield rows, weights
            advance(rows.stop - rows.start)


def needed_bytes(users: int, items: int) -> tuple[int, int]:
    """Return the size of the inverse, and what all weights of a blend take, in bytes.

    The inverse of a matrix of items makes room for the weights.
    """
    inverse = 4 * min(users, items) ** 2
    return inverse, 4 * items**2 + (inverse if users < items else 0)


def check_memory(flag: str, users: int, items: int, memory: int) -> None:
    """Check that EASE of U users and I items fits into so many bytes, without a blend.

    Raises:
        UserError: it does not.
    """
    needed, _ = needed_bytes(users, items)
    if needed > _USABLE * memory:
        raise _out_of_memory(flag, users, items, f"{needed / 1e9:.1f} GB of memory", memory)


def weights_per_item(users: int, items: int, memory: int) -> int:
    """Return how many weights of each item a blend has room for in so many bytes: I, or fewer.

    All weights take 4 bytes each; a part of them takes 8 bytes each, beside the inverse.

    Raises:
        UserError: there is no room for ``MIN_WEIGHTS``.
    """
    inverse, every = needed_bytes(users, items)
    if every <= _USABLE * memory:
        return items
    count = int(_USABLE * memory - inverse) // (8 * items)
    if count < MIN_WEIGHTS:
        fewest = inverse + 8 * items * MIN_WEIGHTS
        needed = (
            f"{every / 1e9:.1f} GB of memory, {fewest / 1e9:.1f} GB with no more than the "
            f"{MIN_WEIGHTS} largest weights of each item"
        )
        raise _out_of_memory("--blend ease", users, items, needed, memory)
    return count


def _out_of_memory(flag: str, users: int, items: int, needed: str, memory: int) -> UserError:
    return UserError(
        f"{flag}: with {users:,} training users and {items:,} items EASE takes {needed}, and "
        f"{_USABLE * memory / 1e9:.1f} GB are available for it; leave it out, or raise "
        "--min_users_per_item in prepare_dataset.py."
    )


def _with_values(matrix: csr_matrix, values: NDArray[Any]) -> csr_matrix:
    return csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)


def fit(_: Dataset, __: Progress, find_ease: Callable[[], Ease]) -> Baseline:
    """Return the baseline that EASE is."""
    ease = find_ease()
    return Baseline(ease.scores, ease.settings)
