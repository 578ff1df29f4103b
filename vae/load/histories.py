"""Histories to recommend for: raw ids mapped to the item indices of a prepared data set.

Raises:
    UserError: a table cannot be used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from vae.errors import UserError, one_line
from vae.load.config import Columns
from vae.load.dataset import Dataset, ones_at
from vae.load.ids import find_ids, unknown_ids
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
    """Return the whole histories of all users of the data set."""
    histories = dataset.all_histories()
    return UserHistories(dataset.all_user_ids(), histories, histories)


def read_histories(table: Path | pd.DataFrame, dataset: Dataset) -> UserHistories:
    """Read histories from a table with the same columns as the data set's ratings.

    The column of ratings is optional. If there is one, an item rated below the data set's threshold
    is seen but not liked. A table of users alone stands for their prepared histories.

    Args:
        table: ratings file as ``prepare_dataset.py`` takes it, a folder of them, or a data frame.
        dataset: data set that maps ids to item indices.

    Raises:
        UserError: none of the items, or of the users of a table of users alone, is in the data set.
    """
    columns = dataset.columns
    sources, notes = sources_of(table, "the histories", columns)
    interactions = read_interactions(
        sources,
        columns,
        dataset.threshold,
        keep_all=True,
        optional=columns.rating,
        allow_single_column=columns.user,
        advice=f"histories need the columns and the format of the ratings of {dataset.name}, "
        "or the column of users alone",
    )
    notes += notes_of(interactions)
    users, items = interactions.users, interactions.items
    if len(items.codes) < len(users.codes):
        return _histories_of(users.values, dataset, sources[0].path, notes)
    indices = find_ids(items.values, dataset.item_ids)
    # A frame may be that of a single visitor; a file whose ids are all unknown is a mistake.
    if isinstance(table, Path) and len(indices) and (indices < 0).all():
        kind, path = f"an item of {dataset.name}", str(sources[0].path)
        raise unknown_ids(path, columns.item, kind, items.values, dataset.item_ids)
    assert interactions.is_liked is not None
    shape = (len(users.values), len(dataset.item_ids))
    item_indices = indices[items.codes]
    is_known = item_indices >= 0
    liked = seen = ones_at(users.codes[is_known], item_indices[is_known], shape)
    if not interactions.is_liked.all():
        rows = is_known & interactions.is_liked
        liked = ones_at(users.codes[rows], item_indices[rows], shape)
    return UserHistories(users.values, liked, seen, int((indices < 0).sum()), tuple(notes))


def _histories_of(
    user_ids: NDArray[np.generic], dataset: Dataset, path: Path, notes: list[str]
) -> UserHistories:
    """Return the prepared histories of users; that of a user who is not prepared is empty."""
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


def sources_of(
    table: Path | pd.DataFrame, name: str, columns: Columns
) -> tuple[list[Source], list[str]]:
    """Return a table as what the readers take, and sentences on what was skipped.

    If the ratings have no header, the columns of a data frame, which messages call by its ``name``,
    are ``user``, ``item`` and ``rating``.
    """
    if isinstance(table, Path):
        return find_sources([table])
    if not columns.header:
        numbers = {"user": columns.user, "item": columns.item, "rating": columns.rating}
        table = table.rename(columns=numbers)
    # A frame without items is taken as it is: it may have users alone, or a column to name.
    if columns.item in table.columns:
        wanted = [column for column in table.columns if column in columns.names]
        table = table if len(wanted) == len(table.columns) else table[wanted]
    try:
        rows = pa.Table.from_pandas(table, preserve_index=False)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        fix = "pass columns of integers, numbers or strings"
        raise UserError(f"{name}: cannot be read ({one_line(error)}); {fix}.") from None
    return [Source(Path(name), table=rows)], []


def notes_of(interactions: Interactions) -> list[str]:
    """Return sentences on what was dropped and assumed while a table was read."""
    missing = interactions.rows_missing
    dropped = [f"{missing:,} rows with a missing value dropped."] if missing else []
    return [*dropped, *interactions.notes]
