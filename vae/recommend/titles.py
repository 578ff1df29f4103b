"""Titles of items, from a file such as MovieLens' ``movies.csv``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from vae.config import Config
from vae.errors import UserError
from vae.load import Dataset
from vae.load.histories import find_ids


def read_titles(config: Config, dataset: Dataset) -> pa.Array | None:
    """(items,) strings, the title of each column; null where the file has none.

    The file is CSV with a header row, separated by tabs if its name says .tsv. It names the column
    of ids as the ratings do.

    Args:
        config: names the file, ``--item_names``, and its column of titles.
        dataset: whose items to find.

    Returns:
        None without a file.

    Raises:
        UserError: the file cannot be read, or lacks one of the columns.
    """
    if config.item_names is None:
        return None
    path, id_column, title_column = config.item_names, dataset.columns.item, config.title_col
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
    rows[columns[known]] = np.flatnonzero(known)
    return table[title_column].combine_chunks().take(pa.array(rows, mask=rows < 0))
