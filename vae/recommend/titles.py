"""Titles of items, from a file such as MovieLens' ``movies.csv``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.tables import read_texts
from vae.utils.atomic import require_regular_file

_ADVICE = "a file of titles has the item column of the ratings and a column of titles, --title_col"

TEXT = "string[pyarrow]"
"""dtype of ids and titles in data frames: a gather of Arrow's strings creates no Python objects."""


def read_titles(path: Path, title_column: str, dataset: Dataset) -> pd.Series:
    """Titles of the items of a data set.

    The file is CSV with a header row, or TSV if its name contains ``.tsv``. Its id column has the
    name of the item column of the ratings, and it is quoted as the ratings are. If an id occurs
    several times, its last title counts.

    Args:
        path: file, ``--item_names``.
        title_column: its column of titles, ``--title_col``.
        dataset: prepared data set with I items.

    Returns:
        (I,) strings in the order of the item indices; NA for an item that the file does not have.

    Raises:
        UserError: the file cannot be read, lacks one of the two columns, or has no item of the data
            set.
    """
    table = _read_table(path, title_column, dataset)
    # Integer ids too are compared as they are written.
    items = pd.DataFrame({"id": dataset.item_ids.astype(np.str_)}, dtype=TEXT)
    if not items["id"].isin(table["id"]).any():
        raise _no_item(path, table, dataset)
    return items.merge(table.drop_duplicates("id", keep="last"), on="id", how="left")["title"]


def _read_table(path: Path, title_column: str, dataset: Dataset) -> pd.DataFrame:
    """Return the file's rows as the columns ``id`` and ``title``; a missing value is empty text."""
    # The separator of the ratings need not be that of the titles.
    columns = dataclasses.replace(dataset.columns, separator=None)
    id_column = columns.item if columns.header else "0"
    if not columns.header and not (title_column.isascii() and title_column.isdecimal()):
        raise UserError(
            f"--title_col {title_column!r}: is not a column number, which {dataset.name} needs as "
            "it was prepared with --no_header; ids are in column 0, titles for example in column 1."
        )
    try:
        require_regular_file(path)
        table = read_texts(path, [id_column, title_column], columns, _ADVICE)
    except OSError as error:
        raise UserError(f"--item_names {path}: cannot be read ({error.strerror}).") from None
    except UserError as error:
        raise UserError(f"--item_names {error}") from None
    return table.set_axis(["id", "title"], axis=1).astype(TEXT)


def _no_item(path: Path, table: pd.DataFrame, dataset: Dataset) -> UserError:
    """Error for a file without an item of the data set: its ids may be written differently."""
    if table.empty:
        return UserError(f"--item_names {path}: has no rows.")
    return UserError(
        f"--item_names {path}: no id in its column {dataset.columns.item!r} is an item of "
        f"{dataset.name}; its ids are like {table['id'][0]!r}, those of the data set like "
        f"{str(dataset.item_ids[0])!r}: write them in the same way."
    )
