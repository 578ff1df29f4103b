"""Titles of items, from a file such as MovieLens' ``movies.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from vae.errors import UserError
from vae.load.columns import Columns
from vae.load.csv_file import csv_column_names, read_csv
from vae.load.dataset import Dataset
from vae.load.fold_in import find_ids
from vae.utils.atomic import require_regular_file


def read_titles(path: Path, title_column: str, dataset: Dataset) -> pa.Array:
    """(items,) strings, the title of each column; null where the file has none.

    The file is CSV with a header row, separated by tabs if its name says .tsv. It names the column
    of ids, and quotes its values or not, as the ratings do.

    Args:
        path: the file, ``--item_names``.
        title_column: its column of titles, ``--title_col``.
        dataset: whose items to find.

    Raises:
        UserError: the file cannot be read, lacks one of the columns, or has no item of the data
            set.
    """
    id_column, quoting = dataset.columns.item, dataset.columns.quoting
    try:
        require_regular_file(path)
        found = csv_column_names(path, None, quoting)
        if not {id_column, title_column} <= set(found):
            raise UserError(
                f"{path}: needs the columns {id_column!r} and {title_column!r}; "
                "name the second one with --title_col."
            )
        blocks = list(read_csv(path, Columns(id_column, title_column, quoting=quoting)))
    except OSError as error:
        raise UserError(f"--item_names {path}: cannot be read ({error.strerror}).") from None
    except UserError as error:
        raise UserError(f"--item_names {error}") from None
    ids = [item or "" for block in blocks for item in block.users.to_pylist()]
    titles = pa.array([title for block in blocks for title in block.items.to_pylist()], pa.string())
    columns = find_ids(np.asarray(ids, np.str_), dataset.item_ids)
    rows = np.full(len(dataset.item_ids), -1)
    known = columns >= 0
    if not known.any():
        raise _no_item(path, id_column, ids, dataset)
    rows[columns[known]] = np.flatnonzero(known)
    return titles.take(pa.array(rows, mask=rows < 0))


def _no_item(path: Path, id_column: str, ids: Sequence[str], dataset: Dataset) -> UserError:
    """The error of a file without an item of the data set: often ids are written differently."""
    if not len(ids):
        return UserError(f"--item_names {path}: has no rows.")
    return UserError(
        f"--item_names {path}: no id in its column {id_column!r} is an item of {dataset.name}; "
        f"its ids are like {ids[0]!r}, those of the data set like "
        f"{str(dataset.item_ids[0])!r}, and must be written alike."
    )
