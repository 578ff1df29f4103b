"""The prepared data in memory: what preparation yields and everything else works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.load.columns import Columns


@dataclass(frozen=True)
class HeldOut:
    """Users who are evaluated on and never trained on.

    Attributes:
        fold_in: (users, items) uint8 ones: the history that the model sees.
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
        name: of the data set.
        train: (users, items) uint8 ones, at least one a user.
        train_user_ids: (users,) raw ids.
        item_ids: (items,) raw id of each column.
        validation: users to tune on.
        test: users to report on.
        fingerprint: SHA-256 of the content, the same for the same data only.
        columns: those of the ratings that it was prepared from.
        threshold: the least rating of theirs that counts.
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
        """Makes sure that the parts fit together; reads all matrices once.

        Raises:
            ValueError: a matrix has other rows or columns than there are ids, or is not one of
                distinct pairs.
        """
        held_out = {"validation": self.validation, "test": self.test}
        parts = {"train": (self.train, self.train_user_ids)}
        for name, part in held_out.items():
            parts[f"{name}_fold_in"] = (part.fold_in, part.user_ids)
            parts[f"{name}_targets"] = (part.targets, part.user_ids)
        for name, (matrix, user_ids) in parts.items():
            shape = (len(user_ids), len(self.item_ids))
            if matrix.shape != shape:
                raise ValueError(f"{name} has the shape {matrix.shape} and ids for {shape}")
            matrix.check_format(full_check=True)
            if not (_ascends_in_rows(matrix) and _holds_ones(matrix)):
                raise ValueError(f"{name} holds other than distinct pairs")


@dataclass(frozen=True)
class Split:
    """The prepared data, and what was counted on the way.

    Attributes:
        train: (users, items) uint8.
        train_user_ids: raw id of each row of ``train``.
        item_ids: raw id of each column, ascending.
        validation: held-out users to tune on.
        test: held-out users to report on.
        counts: what was kept and dropped, by step.
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
    """Whether no row names a column twice or out of order."""
    ascends = matrix.indices[1:] > matrix.indices[:-1]
    starts = matrix.indptr[1:-1]
    ascends[starts[(starts > 0) & (starts < matrix.nnz)] - 1] = True
    return bool(ascends.all())
