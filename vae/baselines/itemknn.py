"""Item-kNN: items similar to those of the history (Deshpande and Karypis 2004).

Shapes: U training users, B users, I items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from vae.utils.console import Progress, silent

NEIGHBOURS = 100
SHRINKAGE = 10
"""Number of neighbours of an item, and the shrinkage of its similarities: of 50 to 400 and 0 to 100
among the best by validation NDCG@100 on MovieLens-1M, where both matter little."""

_BLOCK = 1024


def item_similarities(
    train: csr_matrix,
    neighbours: int = NEIGHBOURS,
    shrinkage: float = SHRINKAGE,
    progress: Progress = silent,
) -> csr_matrix:
    """Return the similarities of each item to its nearest neighbours.

    The similarity of items i and j, with n_i and n_j users and n_ij common ones, is the cosine with
    shrinkage, n_ij / (sqrt(n_i n_j) + shrinkage), which favours items with many users (Ferrari
    Dacrema et al. 2019, arXiv:1907.06902, section 3.2).

    Args:
        train: (U, I) training matrix.
        neighbours: number of neighbours per item (ties: lower index first).
        shrinkage: added to the denominator.
        progress: shows how far the computation is.

    Returns:
        (I, I) float32; column j holds the similarities of item j to its neighbours, so the scores
        of items are ``histories @ similarities``.
    """
    matrix = csr_matrix(train, dtype=np.float32)
    transposed = matrix.T.tocsr()
    lengths = np.sqrt(np.diff(transposed.indptr)).astype(np.float32)
    blocks = []
    with progress("Fitting item-kNN", matrix.shape[1], "items") as bar:
        for first in range(0, matrix.shape[1], _BLOCK):
            rows = slice(first, first + _BLOCK)
            common = (transposed[rows] @ matrix).toarray()
            common[np.arange(len(common)), first + np.arange(len(common))] = 0  # the item itself
            similarities = common / (np.outer(lengths[rows], lengths) + max(shrinkage, 1e-9))
            blocks.append(_largest_of_rows(similarities, neighbours))
            bar.update(len(common))
    return vstack(blocks).T.tocsr() if blocks else csr_matrix((0, 0), dtype=np.float32)


def _largest_of_rows(matrix: NDArray[np.float32], count: int) -> csr_matrix:
    """Return a matrix with the largest positive elements of each row, and zeros elsewhere."""
    rows, columns = matrix.shape
    best = np.argsort(-matrix, axis=1, kind="stable")[:, :count]
    values = np.take_along_axis(matrix, best, axis=1)
    starts = np.arange(rows + 1) * best.shape[1]
    kept = csr_matrix((values.ravel(), best.ravel(), starts), (rows, columns))
    kept.eliminate_zeros()
    return kept
