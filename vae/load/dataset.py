"""Data sets in memory: the training matrix, the held-out users and the raw ids."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.load.config import Columns


@dataclass(frozen=True)
class HeldOut:
    """Users to evaluate on, whom training never sees.

    Attributes:
        fold_in: (users, items) uint8 ones: the items that the model sees.
        targets: (users, items) uint8 ones: the held-out items that it should rank first.
        user_ids: (users,) raw ids.
    """

    fold_in: csr_matrix
    targets: csr_matrix
    user_ids: NDArray[np.generic]


@dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    Attributes:
        name: name of the data set.
        train: (users, items) uint8 ones, at least one per user.
        train_user_ids: (users,) raw ids.
        item_ids: (items,) raw id of each item index.
        validation: users to tune on.
        test: users to report on.
        fingerprint: SHA-256 digest of the content, hexadecimal.
        columns: columns of the ratings files that it was prepared from.
        threshold: least rating of an interaction.
    """

    name: str
    train: csr_matrix
    train_user_ids: NDArray[np.generic]
    item_ids: NDArray[np.generic]
    validation: HeldOut
    test: HeldOut
    fingerprint: str
    columns: Columns
    threshold: float

    def check(self) -> None:
        """Check that the matrices fit the ids and each other.

        Raises:
            ValueError: the shape of a matrix differs from the numbers of ids, or its entries are
                not uint8 ones at item indices that ascend within each row.
        """
        held_out = {"validation": self.validation, "test": self.test}
        parts = {"train": (self.train, self.train_user_ids)}
        for name, part in held_out.items():
            parts[f"{name}_fold_in"] = (part.fold_in, part.user_ids)
            parts[f"{name}_targets"] = (part.targets, part.user_ids)
        for name, (matrix, user_ids) in parts.items():
            shape = (len(user_ids), len(self.item_ids))
            if matrix.shape != shape:
                raise ValueError(f"{name} has the shape {matrix.shape}, the ids have {shape}")
            matrix.check_format(full_check=True)
            if not (_ascends_in_rows(matrix) and _holds_ones(matrix)):
                raise ValueError(f"{name} does not hold distinct interactions")


@dataclass(frozen=True)
class Split:
    """A split of interactions, and what was kept and dropped on the way.

    Attributes:
        train: (users, items) uint8 ones.
        train_user_ids: (users,) raw ids.
        item_ids: (items,) raw id of each item index, ascending.
        validation: held-out users to tune on.
        test: held-out users to report on.
        counts: rows, interactions, users and items that were kept and dropped, by step.
    """

    train: csr_matrix
    train_user_ids: NDArray[np.generic]
    item_ids: NDArray[np.generic]
    validation: HeldOut
    test: HeldOut
    counts: dict[str, int] = field(default_factory=dict)


def _holds_ones(matrix: csr_matrix) -> bool:
    return matrix.dtype == np.uint8 and bool((matrix.data == 1).all())


def _ascends_in_rows(matrix: csr_matrix) -> bool:
    """Return whether the item indices of each row ascend strictly."""
    ascends = matrix.indices[1:] > matrix.indices[:-1]
    starts = matrix.indptr[1:-1]
    ascends[starts[(starts > 0) & (starts < matrix.nnz)] - 1] = True
    return bool(ascends.all())
