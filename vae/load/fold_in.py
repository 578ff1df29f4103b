"""Histories to recommend for: raw ids mapped to the item indices of a prepared data set."""

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
    """Users and the items of the catalogue in their histories.

    Attributes:
        user_ids: (users,) raw ids.
        liked: (users, items) uint8 ones: the fold-in items.
        seen: (users, items) uint8 ones: items not to recommend, a superset of ``liked``.
        unknown_items: number of distinct items in the files that are not in the catalogue.
        line_breaks: number of line breaks inside quoted values of the files.
    """

    user_ids: NDArray[np.generic]
    liked: csr_matrix
    seen: csr_matrix
    unknown_items: int = 0
    line_breaks: int = 0

    @property
    def users(self) -> int:
        """Return the number of users."""
        return len(self.user_ids)


def prepared_histories(dataset: Dataset) -> UserHistories:
    """Return the whole histories of all users: training, validation, test, in this order."""
    held_out = (dataset.validation, dataset.test)
    matrix = vstack(
        [dataset.train, *(part.fold_in + part.targets for part in held_out)], format="csr"
    )
    ids = np.concatenate([dataset.train_user_ids, *(part.user_ids for part in held_out)])
    return UserHistories(ids, matrix, matrix)


def read_histories(source: Path, dataset: Dataset) -> UserHistories:
    """Read histories from files with the same columns as the data set's ratings.

    The column of ratings is optional. If there is one, an item rated below the data set's threshold
    is seen but not liked.

    Args:
        source: ratings file as ``prepare_dataset.py`` takes it, or a folder of them.
        dataset: data set that maps ids to item indices.

    Raises:
        UserError: a file cannot be read, see ``read_ratings``.
    """
    files = ratings_files([source])
    columns = dataset.columns
    found = column_names(files[0], columns.separator, columns.quoting)
    if not {columns.user, columns.item} <= set(found):
        raise UserError(
            f"{files[0]}: needs the columns {columns.user!r} and {columns.item!r}, as in the "
            f"ratings of {dataset.name}, but has {', '.join(map(repr, found))[:200]}."
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
    """Return the index of each raw id among the known ones, -1 if it is unknown.

    A single id that is not a plain integer makes all ids of a column strings; these still match
    integers.

    Args:
        ids: (ids,) raw ids, integers or strings.
        known: (n,) distinct raw ids, at least one.

    Returns:
        (ids,) int64 indices into ``known``.
    """
    if ids.dtype.kind != known.dtype.kind:
        ids, known = ids.astype(np.str_), known.astype(np.str_)
    order = np.argsort(known)
    nearest = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(order) - 1)]
    return np.where(known[nearest] == ids, nearest, -1)


def _matrix(ratings: Ratings, user_ids: NDArray[np.generic], dataset: Dataset) -> csr_matrix:
    """Return (users, items) uint8 ones at the interactions with items of the catalogue.

    Args:
        ratings: interactions of some of the users.
        user_ids: (users,) distinct raw ids.
        dataset: data set that maps ids to item indices.
    """
    users = find_ids(ratings.users.values, user_ids)[ratings.users.codes]
    items = find_ids(ratings.items.values, dataset.item_ids)[ratings.items.codes]
    is_known = items >= 0
    ones = np.ones(int(is_known.sum()), bool)
    shape = (len(user_ids), len(dataset.item_ids))
    # True + True is True: duplicates become one.
    return coo_matrix((ones, (users[is_known], items[is_known])), shape).tocsr().astype(np.uint8)
