"""Histories to recommend for: raw ids mapped to the item indices of a prepared data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, vstack

from vae.errors import UserError, one_line
from vae.load.config import Columns
from vae.load.dataset import Dataset
from vae.load.reading.files import Source, find_sources
from vae.load.reading.interactions import Interactions, read_interactions


@dataclass(frozen=True)
class UserHistories:
    """Users and the items of the catalogue in their histories.

    Attributes:
        user_ids: (users,) raw ids.
        liked: (users, items) uint8 ones: the fold-in items.
        seen: (users, items) uint8 ones: items not to recommend, a superset of ``liked``.
        unknown_items: number of distinct items in the files that are not in the catalogue.
        notes: sentences on what was assumed about the files.
    """

    user_ids: NDArray[np.generic]
    liked: csr_matrix
    seen: csr_matrix
    unknown_items: int = 0
    notes: tuple[str, ...] = ()

    @property
    def users(self) -> int:
        """Return the number of users."""
        return len(self.user_ids)

    def __getitem__(self, rows: slice) -> UserHistories:
        return replace(
            self, user_ids=self.user_ids[rows], liked=self.liked[rows], seen=self.seen[rows]
        )


def prepared_histories(dataset: Dataset) -> UserHistories:
    """Return the whole histories of all users: training, validation, test, in this order."""
    held_out = (dataset.validation, dataset.test)
    matrix = vstack(
        [dataset.train, *(part.fold_in + part.targets for part in held_out)], format="csr"
    )
    return UserHistories(prepared_user_ids(dataset), matrix, matrix)


def prepared_user_ids(dataset: Dataset) -> NDArray[np.generic]:
    """Return the raw ids of all users in the order of ``prepared_histories``."""
    held_out = (dataset.validation, dataset.test)
    return np.concatenate([dataset.train_user_ids, *(part.user_ids for part in held_out)])


def read_histories(table: Path | pd.DataFrame, dataset: Dataset) -> UserHistories:
    """Read histories from a table with the same columns as the data set's ratings.

    The column of ratings is optional. If there is one, an item rated below the data set's threshold
    is seen but not liked. A table of users alone stands for their prepared histories.

    Args:
        table: ratings file as ``prepare_dataset.py`` takes it, a folder of them, or a data frame.
        dataset: data set that maps ids to item indices.

    Raises:
        UserError: the table cannot be read, see ``read_interactions``, or none of its items, or of
            its users alone, is in the data set.
    """
    columns = dataset.columns
    sources, notes = sources_of(table, "the histories", columns)
    found = read_interactions(
        sources,
        columns,
        dataset.threshold,
        keep_all=True,
        optional=columns.rating,
        allow_single_column=columns.user,
        advice=f"histories need the columns and the format of the ratings of {dataset.name}, "
        "or the column of users alone",
    )
    if found.rows_missing:
        notes.append(f"{found.rows_missing:,} rows with a missing value dropped.")
    notes += found.notes
    if len(found.items.codes) < len(found.users.codes):
        return _histories_of(found.users.values, dataset, sources[0].path, notes)
    items = find_ids(found.items.values, dataset.item_ids)
    # A frame may be that of a single visitor; a file whose ids are all unknown is a mistake.
    if isinstance(table, Path) and len(items) and (items < 0).all():
        kind, path = f"an item of {dataset.name}", str(sources[0].path)
        raise unknown_ids(path, columns.item, kind, found.items.values, dataset.item_ids)
    assert found.is_liked is not None
    return UserHistories(
        found.users.values,
        _matrix(found, items, dataset, found.is_liked),
        _matrix(found, items, dataset, np.ones(len(found.is_liked), bool)),
        int((items < 0).sum()),
        tuple(notes),
    )


def _histories_of(
    user_ids: NDArray[np.generic], dataset: Dataset, path: Path, notes: list[str]
) -> UserHistories:
    """Return the prepared histories of users; that of a user who is not prepared is empty.

    Raises:
        UserError: none of the users is prepared.
    """
    known = prepared_histories(dataset)
    rows = find_ids(user_ids, known.user_ids)
    unknown = int((rows < 0).sum())
    if unknown == len(rows):
        kind = f"a user of {dataset.name}"
        raise unknown_ids(str(path), dataset.columns.user, kind, user_ids, known.user_ids)
    if unknown:
        notes.append(f"{unknown:,} users unknown to {dataset.name} get the most popular items.")
    empty = csr_matrix((1, len(dataset.item_ids)), dtype=known.liked.dtype)
    matrix = vstack([known.liked, empty], format="csr")[rows]  # -1 is the last row
    return UserHistories(user_ids, matrix, matrix, notes=tuple(notes))


def unknown_ids(
    where: str, column: str, kind: str, ids: NDArray[np.generic], known: NDArray[np.generic]
) -> UserError:
    """Error for a file without any id of the data set: its ids may be written differently.

    Args:
        where: file, after its flag.
        column: its column of ids.
        kind: what the ids should be, such as "an item of ml-20m".
        ids: (n,) ids of the file.
        known: (m,) ids of the data set.
    """
    return UserError(
        f"{where}: no id in its column {column!r} is {kind}; its ids are like "
        f"{str(ids[0])!r}, those of the data set like {str(known[0])!r}: write them in the same "
        "way."
    )


def sources_of(
    table: Path | pd.DataFrame, name: str, columns: Columns
) -> tuple[list[Source], list[str]]:
    """Return a table as what the readers take, and sentences on what was skipped.

    Args:
        table: file, folder or data frame. If the ratings have no header, the columns of a data
            frame are ``user``, ``item`` and ``rating``.
        name: name of a data frame in messages.
        columns: columns of the ratings.

    Raises:
        UserError: a file does not exist, or a column of a data frame has values of several types.
    """
    if isinstance(table, Path):
        return find_sources([table])
    if not columns.header:
        numbers = {"user": columns.user, "item": columns.item, "rating": columns.rating}
        table = table.rename(columns=numbers)
    # A frame without items is taken as it is: it may have users alone, or a column to name.
    if columns.item in table.columns:
        table = table[[column for column in table.columns if column in columns.names]]
    try:
        rows = pa.Table.from_pandas(table, preserve_index=False)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        fix = "pass columns of integers, numbers or strings"
        raise UserError(f"{name}: cannot be read ({one_line(error)}); {fix}.") from None
    return [Source(Path(name), table=rows)], []


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


def _matrix(
    found: Interactions,
    item_indices: NDArray[np.int64],
    dataset: Dataset,
    is_wanted: NDArray[np.bool_],
) -> csr_matrix:
    """Return (users, items) uint8 ones at interactions with items of the catalogue.

    Args:
        found: interactions.
        item_indices: (distinct ids,) item index of each id of these, -1 if it is unknown.
        dataset: data set with the catalogue.
        is_wanted: (interactions,) bool, which of them to take.
    """
    items = item_indices[found.items.codes]
    rows = is_wanted & (items >= 0)
    shape = (len(found.users.values), len(dataset.item_ids))
    # True + True is True: duplicates become one.
    ones = np.ones(int(rows.sum()), bool)
    matrix = coo_matrix((ones, (found.users.codes[rows], items[rows])), shape)
    return matrix.tocsr().astype(np.uint8)
