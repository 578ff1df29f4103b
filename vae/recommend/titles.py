"""Titles of items, from a file such as MovieLens' ``movies.csv``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.ids import unknown_ids
from vae.load.reading.files import reading
from vae.load.reading.tables import read_texts
from vae.utils.atomic import require_regular_file

_ADVICE = (
    "name the columns of ids and titles with --item_names_col and --title_col, by their numbers "
    "from 0 if there is no header row"
)

TEXT = "string[pyarrow]"
"""dtype of ids and titles in data frames: a gather of Arrow's strings creates no Python objects."""


def read_titles(
    path: Path, title_column: str, dataset: Dataset, id_column: str | None = None
) -> pd.Series:
    """Read the titles of the items of a data set.

    The file has any format of ratings, and is quoted as the ratings are. Columns that are both
    named by numbers are those of a text file without a header row. Without an ``id_column`` it is
    the item column of the ratings, or the first one if titles are in a column with a number. If an
    id occurs several times, its last title counts.

    Returns:
        (I,) strings in the order of the item indices; NA for an item that the file does not have.

    Raises:
        UserError: the file cannot be read, lacks a column, or has no item of the data set.
    """
    if id_column is None:
        if not dataset.columns.header and not _is_number(title_column):
            raise UserError(
                f"--title_col {title_column!r}: is not a column number, which {dataset.name} needs "
                "as it was prepared with --no_header; ids are in column 0, titles for example in "
                "column 1; or name the column of ids with --item_names_col."
            )
        id_column = "0" if _is_number(title_column) else dataset.columns.item
    has_names = not (_is_number(id_column) and _is_number(title_column))
    columns = dataclasses.replace(dataset.columns, header=has_names)
    where = f"--item_names {path}"
    try:
        with reading(path):
            require_regular_file(path)
        table = read_texts(path, [id_column, title_column], columns, _ADVICE)
    except UserError as error:
        raise UserError(f"--item_names {error}") from None
    table = table.set_axis(["id", "title"], axis=1).astype(TEXT)
    if table.empty:
        raise UserError(f"{where}: has no rows.")
    # Integer ids too are compared as they are written.
    items = pd.DataFrame({"id": dataset.item_ids.astype(np.str_)}, dtype=TEXT)
    if not items["id"].isin(table["id"]).any():
        kind = f"an item of {dataset.name}"
        raise unknown_ids(where, id_column, kind, table["id"].array, dataset.item_ids)
    return items.merge(table.drop_duplicates("id", keep="last"), on="id", how="left")["title"]


def _is_number(column: str) -> bool:
    return column.isascii() and column.isdecimal()
