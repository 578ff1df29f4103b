"""Whom to recommend to: raw histories, in the columns of a prepared data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, vstack

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.ratings import Ratings, read_ratings
from vae.load.sources import column_names, ratings_files

_EVERY_RATING = float("-inf")


@dataclass(frozen=True)
class UserHistories:
    """Users and the items of the catalogue that they know.

    Attributes:
        user_ids: (users,) raw ids.
        liked: (users, items) uint8 ones: what the model folds in.
        seen: (users, items) uint8 ones: what must not be recommended; ``liked`` and more.
        unknown_items: distinct items in the file that the catalogue does not have.
        line_breaks: inside quoted values of the file.
    """

    user_ids: NDArray[np.generic]
    liked: csr_matrix
    seen: csr_matrix
    unknown_items: int = 0
    line_breaks: int = 0

    @property
    def users(self) -> int:
        """How many there are."""
        return len(self.user_ids)


def prepared_histories(dataset: Dataset) -> UserHistories:
    """The whole histories of all prepared users: training, validation, test, in this order."""
    held_out = (dataset.validation, dataset.test)
    matrix = vstack(
        [dataset.train, *(part.fold_in + part.targets for part in held_out)], format="csr"
    )
    ids = np.concatenate([dataset.train_user_ids, *(part.user_ids for part in held_out)])
    return UserHistories(ids, matrix, matrix)


def read_histories(source: Path, dataset: Dataset) -> UserHistories:
    """Reads files with the columns of the data set's own ratings.

    Ratings are optional. Where there are any, an item rated below the data set's threshold was seen
    but not liked.

    Args:
        source: a file as ``prepare_dataset.py`` takes them, or a folder of them.
        dataset: whose items to find.

    Raises:
        UserError: a file cannot be read as ``read_ratings`` reads it.
    """
    files = ratings_files([source])
    columns = dataset.columns
    found = column_names(files[0], columns.separator, columns.quoting)
    if not {columns.user, columns.item} <= set(found):
        raise UserError(
            f"{files[0]}: needs the columns {columns.user!r} and {columns.item!r}, as the ratings "
            f"of {dataset.name} have them, and has {', '.join(map(repr, found))[:200]}."
        )
    everything = read_ratings(files, dataclasses.replace(columns, rating=None), _EVERY_RATING)
    user_ids = everything.users.values
    seen = _matrix(everything, user_ids, dataset)
    if columns.rating in found:
        liked = _matrix(read_ratings(files, columns, dataset.threshold), user_ids, dataset)
    else:
        liked = seen
    unknown = find_ids(everything.items.values, dataset.item_ids) < 0
    return UserHistories(user_ids, liked, seen, int(unknown.sum()), everything.line_breaks)


def find_ids(ids: NDArray[np.generic], known: NDArray[np.generic]) -> NDArray[np.int64]:
    """(ids,) the place of each raw id among the known ones, -1 where it is not one of them.

    One id that is no plain integer makes all ids of a column strings; they still match integers.

    Args:
        ids: raw ids.
        known: (n,) distinct raw ids, at least one.
    """
    if ids.dtype.kind != known.dtype.kind:
        ids, known = ids.astype(np.str_), known.astype(np.str_)
    order = np.argsort(known)
    places = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(order) - 1)]
    return np.where(known[places] == ids, places, -1)


def _matrix(ratings: Ratings, user_ids: NDArray[np.generic], dataset: Dataset) -> csr_matrix:
    """(users, items) uint8 ones at the pairs of known items; ``ratings`` may have fewer users."""
    rows = find_ids(ratings.users.values, user_ids)[ratings.users.codes]
    columns = find_ids(ratings.items.values, dataset.item_ids)[ratings.items.codes]
    kept = columns >= 0
    ones = np.ones(int(kept.sum()), bool)
    shape = (len(user_ids), len(dataset.item_ids))
    # True + True is True: a pair counts once.
    return coo_matrix((ones, (rows[kept], columns[kept])), shape).tocsr().astype(np.uint8)
