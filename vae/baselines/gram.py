"""Gram matrices, block by block, and their inverse in float32 and in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Matrix = NDArray[np.float32]

_ALIGNMENT = 64
"""Bytes. TensorFlow does not copy an array at a multiple of it when a variable is set."""


def common_users(
    train: csr_matrix, items_per_block: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield the item indices of a block, and the (block, I) numbers of users who have both items.

    These rows of the Gram matrix are exact below 2^24 users. All of them in a sparse matrix may
    take more memory than in a dense one.
    """
    matrix = csr_matrix(train, dtype=np.float32)
    transposed = matrix.T.tocsr()
    for rows in blocks_of(matrix.shape[1], items_per_block):
        yield rows, (transposed[rows] @ matrix).toarray()


def one_plus_gram(factor: csr_matrix, block: int, advance: Callable[[int], object]) -> Matrix:
    """Return 1 + A'A, (N, N), of an (M, N) matrix A."""
    size = factor.shape[1]
    matrix = empty(size, size)
    for rows, products in common_users(factor, block):
        matrix[rows] = products
        advance(len(products))
    np.einsum("ii->i", matrix)[:] += 1
    return matrix


def empty(rows: int, columns: int) -> Matrix:
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
    blocks = [*blocks_of(len(matrix), block)]
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


def blocks_of(size: int, block: int) -> Iterator[slice]:
    """Yield the slices of blocks of rows."""
    for first in range(0, size, block):
        yield slice(first, min(first + block, size))
