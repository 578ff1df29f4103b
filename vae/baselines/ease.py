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

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity

from vae.baselines.best_unseen import best_unseen
from vae.baselines.fit import Baseline
from vae.baselines.itemknn import common_users
from vae.errors import UserError
from vae.load.dataset import Dataset, HeldOut
from vae.metrics.ranking import SELECTION_METRIC
from vae.metrics.user_results import UserResults
from vae.utils.console import Progress
from vae.utils.run_log import RunLog

LAMBDAS = (10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000)
DROPOUTS = (0, 0.3, 0.5, 0.6)
"""Values to choose from."""

MAX_FITS = 10
"""Fits of a choice: those of the search and, unless its last one was the best, the best again."""

BLOCK = 512
"""Rows of dense matrices that are computed at a time."""

_MAX_ERROR = 1e-2
"""Root mean square error of the scores of a history of all items, with random signs."""

MIN_WEIGHTS = 100
"""Minimum number of weights of each item in a blend."""

_USABLE = 3 / 4
"""Fraction of the memory for EASE; the rest is for the model, the program and a batch's scores."""

_ALIGNMENT = 64
"""Bytes. TensorFlow does not copy an array at a multiple of it when a variable is set."""

Matrix = NDArray[np.float32]


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
        description: the same, human-readable.

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
        users_per_item = np.bincount(train.indices, minlength=train.shape[1])
        self._root = np.sqrt(lambda_ + users_per_item * dropout / (1 - dropout)).astype(np.float32)
        self._z = _with_values(train, 1 / self._root[train.indices])
        self._by_users = train.shape[0] < train.shape[1]
        factor = self._z.T.tocsr() if self._by_users else self._z
        self._inverse = _one_plus_gram(factor, block, advance)
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
        for rows in _blocks(len(diagonal), self._block):
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

        If N is I, they take the place of the inverse.

        Args:
            advance: takes the number of items of each block that is done.
        """
        if self._weights is None:
            items = self._z.shape[1]
            weights = _empty(items, items) if self._by_users else self._inverse
            for rows, block in self._weights_by_rows(advance):
                weights[rows] = block
            self._weights = weights
            del self._inverse
        return self._weights

    def largest_weights(
        self, count: int, advance: Callable[[int], object] = lambda items: None
    ) -> tuple[Matrix, NDArray[np.int32]]:
        """Return the (I, count) weights of each row with the largest magnitudes, and their columns.

        Args:
            count: number of weights of each item, at most I.
            advance: takes the number of items of each block that is done.
        """
        items = self._z.shape[1]
        values, indices = _empty(items, count), _empty(items, count).view(np.int32)
        for rows, block in self._weights_by_rows(advance):
            indices[rows] = np.argpartition(-np.abs(block), count - 1, axis=1)[:, :count]
            values[rows] = np.take_along_axis(block, indices[rows], axis=1)
        return values, indices

    def _weights_by_rows(self, advance: Callable[[int], object]) -> Iterator[tuple[slice, Matrix]]:
        """Yield blocks of rows of the (I, I) weights."""
        items = self._z.shape[1]
        for rows in _blocks(items, self._block):
            weights = self.scores(identity(items, np.float32, "csr")[rows])
            np.fill_diagonal(weights[:, rows], 0)
            yield rows, weights
            advance(rows.stop - rows.start)


def check_memory(flag: str, users: int, items: int, memory: int) -> None:
    """Check that EASE of U users and I items fits into so many bytes, without a blend.

    Raises:
        UserError: it does not.
    """
    needed = 4 * min(users, items) ** 2
    if needed > _USABLE * memory:
        raise _out_of_memory(flag, users, items, f"{needed / 1e9:.1f} GB of memory", memory)


def weights_per_item(users: int, items: int, memory: int) -> int:
    """Return how many weights of each item a blend has room for in so many bytes: I, or fewer.

    All weights take 4 bytes each, and the inverse of a matrix of items makes room for them; a part
    of them takes 8 bytes each, beside the inverse.

    Raises:
        UserError: there is no room for ``MIN_WEIGHTS``.
    """
    inverse = 4 * min(users, items) ** 2
    every = 4 * items**2 + (inverse if users < items else 0)
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


def _one_plus_gram(factor: csr_matrix, block: int, advance: Callable[[int], object]) -> Matrix:
    """Return 1 + A'A, (N, N), of an (M, N) matrix A."""
    size = factor.shape[1]
    matrix = _empty(size, size)
    for rows, products in common_users(factor, block):
        matrix[rows] = products
        advance(len(products))
    np.einsum("ii->i", matrix)[:] += 1
    return matrix


def _empty(rows: int, columns: int) -> Matrix:
    """Return an array at an address of which TensorFlow needs no copy."""
    size = 4 * rows * columns
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size].view(np.float32).reshape(rows, columns)


def invert(matrix: Matrix, block: int, advance: Callable[[int], object]) -> None:
    """Invert a symmetric positive definite (N, N) matrix in place, by Cholesky's factorisation.

    As LAPACK's potrf and potri, whose operations and precision it has, but in blocks that are done
    before a signal has to wait. Gauss-Jordan elimination, which is shorter, loses three digits more
    where there are fewer users than items.

    Raises:
        LinAlgError: the matrix is not positive definite.
    """
    blocks = [*_blocks(len(matrix), block)]
    # The factor L, with the inverses of its blocks on the diagonal.
    for number, pivot in enumerate(blocks):
        left = matrix[pivot, : pivot.start].T
        for rows in blocks[number:]:
            matrix[rows, pivot] -= matrix[rows, : pivot.start] @ left
        factor = np.linalg.cholesky(matrix[pivot, pivot].astype(np.float64))
        matrix[pivot, pivot] = np.tril(np.linalg.inv(factor))
        for rows in blocks[number + 1 :]:
            matrix[rows, pivot] = matrix[rows, pivot] @ matrix[pivot, pivot].T
        advance(pivot.stop - pivot.start)
    # L^-1, row by row.
    for number, rows in enumerate(blocks):
        left = -matrix[rows, rows] @ matrix[rows, : rows.start]
        for columns in blocks[:number]:
            above = matrix[columns.start : rows.start, columns]
            matrix[rows, columns] = left[:, columns.start :] @ above
        advance(rows.stop - rows.start)
    # L^-T L^-1, which needs nothing of the rows above, and the same on the other side.
    for number, rows in enumerate(blocks):
        for columns in blocks[: number + 1]:
            product = matrix[rows.start :, rows].T @ matrix[rows.start :, columns]
            matrix[rows, columns], matrix[columns, rows] = product, product.T
        advance(rows.stop - rows.start)


def _blocks(size: int, block: int) -> Iterator[slice]:
    """Yield the slices of blocks of rows."""
    for first in range(0, size, block):
        yield slice(first, min(first + block, size))


def _with_values(matrix: csr_matrix, values: NDArray[Any]) -> csr_matrix:
    return csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)


def fit(_: Dataset, __: Progress, find_ease: Callable[[], Ease]) -> Baseline:
    """Return the baseline that EASE is."""
    ease = find_ease()
    return Baseline(ease.scores, ease.settings)


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

    Args:
        value: the function to maximise.
        grid: values along each axis.
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
