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
        ranked: (users, items) uint8 ones: what it has to find.
        user_ids: (users,) raw ids.
    """

    fold_in: csr_matrix
    ranked: csr_matrix
    user_ids: NDArray[np.generic]


@dataclass(frozen=True)
class Dataset:
    """A prepared data set; its matrices are read from the disk as they are used.

    Attributes:
        name: of the data set.
        train: (users, items) uint8 ones, at least one a user.
        train_user_ids: (users,) raw ids.
        item_ids: (items,) raw id of each column.
        validation: users to tune on.
        test: users to report on.
        digest: of the content: the same for the same data only.
        columns: those of the ratings that it was prepared from.
        threshold: the least rating of theirs that counts.
    """

    name: str
    train: csr_matrix
    train_user_ids: NDArray[np.generic]
    item_ids: NDArray[np.generic]
    validation: HeldOut
    test: HeldOut
    digest: str
    columns: Columns
    threshold: float


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
