"""Data sets in memory: the training matrix, the held-out users and the raw ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, vstack

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
class Split:
    """Interactions split for strong generalisation.

    Attributes:
        train: (users, items) uint8 ones, at least one per user.
        train_user_ids: (users,) raw ids.
        item_ids: (items,) raw id of each item index, ascending but for those of ``--extend``.
        validation: users to tune on.
        test: users to report on.
        counts: rows, interactions, users and items that were kept and dropped, by step.
        waiting: interactions of users with few items and of items with few users, who may get more
            with ``--extend``; see ``split.waiting_interactions``. None if they are not known.
    """

    train: csr_matrix
    train_user_ids: NDArray[np.generic]
    item_ids: NDArray[np.generic]
    validation: HeldOut
    test: HeldOut
    counts: dict[str, int] = field(default_factory=dict)
    waiting: pa.Table | None = None

    @property
    def held_out(self) -> tuple[HeldOut, HeldOut]:
        """Return the users of validation and test."""
        return self.validation, self.test

    def sizes(self) -> dict[str, int]:
        """Return the numbers of items, training users and interactions, as in ``counts``."""
        sizes = {
            "items": len(self.item_ids),
            "train_users": self.train.shape[0],
            "train_interactions": self.train.nnz,
        }
        for name, part in zip(("validation", "test"), self.held_out, strict=True):
            sizes[f"{name}_fold_in_interactions"] = part.fold_in.nnz
            sizes[f"{name}_target_interactions"] = part.targets.nnz
            sizes[f"{name}_users_without_targets"] = int((part.targets.getnnz(axis=1) == 0).sum())
        return sizes

    def all_user_ids(self) -> NDArray[np.generic]:
        """Return the raw ids of all users: training, validation, test, in this order."""
        return np.concatenate([self.train_user_ids, *(part.user_ids for part in self.held_out)])

    def all_histories(self) -> csr_matrix:
        """Return (users, items) uint8 ones: the whole histories, in that order of users."""
        held_out = [part.fold_in + part.targets for part in self.held_out]
        return vstack([self.train, *held_out], format="csr")


@dataclass(frozen=True, kw_only=True)
class Dataset(Split):
    """A prepared data set.

    Attributes:
        fingerprint: SHA-256 digest of the content, hexadecimal.
        columns: columns of the ratings files that it was prepared from.
        threshold: least rating of an interaction.
        grew_from: training interactions of the data that it was extended from, by fingerprint.
    """

    name: str
    fingerprint: str
    columns: Columns
    threshold: float
    grew_from: Mapping[str, int] = field(default_factory=dict)


def ones_at(
    rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]
) -> csr_matrix:
    """Return a matrix of uint8 ones at these places; one that occurs several times has one too."""
    ones = np.ones(len(rows), bool)
    # SciPy sorts by counting, several times faster than by comparing; True + True is True.
    matrix = coo_matrix((ones, (rows, columns)), shape).tocsr()
    matrix.data = matrix.data.view(np.uint8)
    return matrix
