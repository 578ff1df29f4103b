"""Titles of items, from a file such as MovieLens' ``movies.csv``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vae.errors import UserError
from vae.load import Dataset
from vae.load.histories import find_ids


def read_titles(path: Path, title_column: str, dataset: Dataset) -> pa.Array:
    """(items,) strings, the title of each column; null where the file has none.

    The file is CSV with a header row, separated by tabs if its name says .tsv. It names the column
    of ids as the ratings do.

    Args:
        path: the file, ``--item_names``.
        title_column: its column of titles, ``--title_col``.
        dataset: whose items to find.

    Raises:
        UserError: the file cannot be read, lacks one of the columns, or has no item of the data
            set.
    """
    id_column = dataset.columns.item
    texts = {id_column: pa.string(), title_column: pa.string()}
    try:
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(
                delimiter="\t" if ".tsv" in path.suffixes else ",", newlines_in_values=True
            ),
            convert_options=pa_csv.ConvertOptions(include_columns=list(texts), column_types=texts),
        )
    except KeyError:
        raise UserError(
            f"{path}: needs the columns {id_column!r} and {title_column!r}; "
            "name the second one with --title_col."
        ) from None
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"--item_names {path}: cannot be read ({reason}).") from None
    ids = np.asarray(table[id_column].fill_null("").to_pylist(), np.str_)
    columns = find_ids(ids, dataset.item_ids)
    rows = np.full(len(dataset.item_ids), -1)
    known = columns >= 0
    if not known.any():
        raise _no_item(path, id_column, ids, dataset)
    rows[columns[known]] = np.flatnonzero(known)
    return table[title_column].combine_chunks().take(pa.array(rows, mask=rows < 0))


def _no_item(path: Path, id_column: str, ids: NDArray[np.str_], dataset: Dataset) -> UserError:
    """The error of a file without an item of the data set: often ids are written differently."""
    if not len(ids):
        return UserError(f"--item_names {path}: has no rows.")
    return UserError(
        f"--item_names {path}: no id in its column {id_column!r} is an item of {dataset.name}; "
        f"its ids are like {str(ids[0])!r}, those of the data set like "
        f"{str(dataset.item_ids[0])!r}, and must be written alike."
    )
