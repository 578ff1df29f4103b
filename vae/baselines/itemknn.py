"""Item-kNN: items similar to those of the history (Deshpande and Karypis 2004).

Shapes: U training users, I items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack

from vae.baselines.fit import Baseline
from vae.baselines.gram import common_users
from vae.baselines.popularity import users_per_item
from vae.load.dataset import Dataset
from vae.utils.console import Progress

NEIGHBOURS = 100
SHRINKAGE = 10
"""Number of neighbours of an item, and the shrinkage of its similarities: of 50 to 400 and 0 to 100
among the best by validation NDCG@100 on MovieLens-1M, where both matter little."""


def fit(dataset: Dataset, progress: Progress, *_: Any) -> Baseline:
    """Return the baseline whose scores are sums of the similarities to the history's items."""
    with progress("Fitting item-kNN", dataset.train.shape[1], "items") as bar:
        similarities = item_similarities(dataset.train, bar.update)
    return Baseline(lambda histories: histories @ similarities)


def item_similarities(
    train: csr_matrix, advance: Callable[[int], object], items_per_block: int = 1024
) -> csr_matrix:
    """Return the similarities of each item to its nearest neighbours (ties: lower index first).

    The similarity of items i and j, with n_i and n_j users and n_ij common ones, is the cosine with
    shrinkage, n_ij / (sqrt(n_i n_j) + shrinkage), which favours items with many users (Ferrari
    Dacrema et al. 2019, arXiv:1907.06902, section 3.2).

    Args:
        train: (U, I) training matrix, in which each item has a user.
        advance: takes the number of items of each block that is done.
        items_per_block: items whose similarities to all others are in memory at a time.

    Returns:
        (I, I) float32, in column j those of item j: scores are ``histories @ similarities``.
    """
    lengths = np.sqrt(users_per_item(train)).astype(np.float32)
    blocks = []
    for rows, common in common_users(train, items_per_block):
        np.fill_diagonal(common[:, rows], 0)  # the item itself
        similarities = common / (np.outer(lengths[rows], lengths) + SHRINKAGE)
        # All but the largest of each row become zero, which a sparse matrix leaves out.
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :NEIGHBOURS]
        values = np.take_along_axis(similarities, best, axis=1)
        similarities.fill(0)
        np.put_along_axis(similarities, best, values, axis=1)
        blocks.append(csr_matrix(similarities))
        advance(len(common))
    return vstack(blocks).T.tocsr()
