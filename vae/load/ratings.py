"""Reading a ratings file: two columns of ids, and one of ratings if there is one."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vae.errors import UserError

_BLOCK_BYTES = 16 << 20
_LIKELY_SEPARATORS = (",", "\t", ";", "|", "::")
_MOST_NAMED = 20


@dataclass(frozen=True)
class Columns:
    """Where a ratings file keeps what.

    Attributes:
        user: name of the column of user ids.
        item: name of the column of item ids.
        rating: name of the column of ratings, None where every row counts.
        separator: one character between two columns.
    """

    user: str
    item: str
    rating: str | None = None
    separator: str = ","

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.user, self.item, self.rating) if name is not None]


@dataclass(frozen=True)
class Ids:
    """A column of ids as numbers that index the sorted distinct ids.

    Attributes:
        codes: (rows,) int32.
        values: distinct ids in ascending order, int64 or fixed-width unicode.
    """

    codes: NDArray[np.int32]
    values: NDArray[np.generic]


@dataclass(frozen=True)
class Ratings:
    """The rows of a ratings file that count, in the file's order.

    Attributes:
        users: ids of the users.
        items: ids of the items.
        rows_read: rows of the file, those below the threshold included.
    """

    users: Ids
    items: Ids
    rows_read: int


def read_ratings(path: Path, columns: Columns, threshold: float) -> Ratings:
    """Reads a CSV file (``.gz`` too) in parallel, its ids as integers if they all are.

    Args:
        path: the file, UTF-8, with a header row.
        columns: the columns to read.
        threshold: rows with a lower rating are dropped.

    Raises:
        UserError: the file cannot be read, or a row of it has no id or no finite rating.
    """
    header = _read_header(path)
    _check_columns(path, columns, header)
    table = _read_table(path, columns, header)
    if table.num_rows == 0:
        raise _no_rows(path)
    for name in columns.names:
        _check_no_gaps(path, name, table[name])
    if columns.rating is not None:
        _check_finite(path, columns.rating, table[columns.rating])
        kept = table.filter(
            pc.greater_equal(table[columns.rating], pa.scalar(threshold, pa.float32()))
        )
    else:
        kept = table
    if kept.num_rows == 0:
        raise UserError(
            f"{path}: no row has a {columns.rating} of at least {threshold:g}; "
            "give a lower --threshold."
        )
    return Ratings(_encode(kept[columns.user]), _encode(kept[columns.item]), table.num_rows)


def _read_header(path: Path) -> str:
    """The first line, without a byte-order mark."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the ratings file in it with --ratings.")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            line = file.readline(1 << 20)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file; name the ratings file with --ratings."
        ) from None
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    try:
        header = re.split(r"[\r\n]", line.decode("utf-8-sig"), maxsplit=1)[0]
    except UnicodeDecodeError:
        raise _not_utf8(path, "row 1") from None
    if not header:
        raise UserError(f"{path}: is empty; a header row with the columns' names is needed.")
    return header


def _check_columns(path: Path, columns: Columns, header: str) -> None:
    """Every wanted column stands in the header, once."""
    found = _split(header, columns.separator)
    for name in columns.names:
        if found.count(name) > 1:
            raise UserError(
                f"{path}: has {found.count(name)} columns named {name!r}; rename all but one."
            )
        if name not in found:
            named = [repr(other[:100]) for other in found[:_MOST_NAMED]]
            more = ", ..." if len(found) > _MOST_NAMED else ""
            raise UserError(
                f"{path}: has no column {name!r} but {', '.join(named)}{more}; "
                f"{_advice(columns, header)}."
            )


def _advice(columns: Columns, header: str) -> str:
    for separator in _LIKELY_SEPARATORS:
        if separator != columns.separator and columns.user in _split(header, separator):
            mend = "give that as --sep" if len(separator) == 1 else "replace that by one character"
            return f"it looks separated by {separator!r}, {mend}"
    return "name the columns with --user_col, --item_col and --rating_col"


def _split(header: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return header.split(separator)
    try:
        return next(csv.reader(io.StringIO(header), delimiter=separator))
    except csv.Error:  # a name longer than the csv module takes: this is no ratings file
        return header.split(separator)


def _read_table(path: Path, columns: Columns, header: str) -> pa.Table:
    """The wanted columns: ids as int64, or as strings where one of them is no integer."""
    types = dict.fromkeys((columns.user, columns.item), pa.int64())
    if columns.rating is not None:
        types[columns.rating] = pa.float32()
    names = _split(header, columns.separator)
    while True:
        try:
            return _parse(path, columns, types, use_threads=True)
        except pa.ArrowInvalid as error:
            name = _column_of(error, names)
            if name is not None and types.get(name) == pa.int64():
                types[name] = pa.string()
            else:
                _explain(path, columns, names)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error}).") from None


def _parse(
    path: Path, columns: Columns, types: Mapping[str, pa.DataType], use_threads: bool
) -> pa.Table:
    return pa_csv.read_csv(
        path,
        pa_csv.ReadOptions(use_threads=use_threads, block_size=_BLOCK_BYTES),
        pa_csv.ParseOptions(delimiter=columns.separator),
        pa_csv.ConvertOptions(include_columns=columns.names, column_types=types),
    )


def _explain(path: Path, columns: Columns, names: Sequence[str]) -> NoReturn:
    """Parses again in one thread, which knows the row, and says what is wrong there."""
    # Ids as strings: that an id is no integer is nothing wrong, even if it comes first.
    types = dict.fromkeys((columns.user, columns.item), pa.string())
    if columns.rating is not None:
        types[columns.rating] = pa.float32()
    try:
        _parse(path, columns, types, use_threads=False)
    except pa.ArrowInvalid as error:
        text = str(error)
        row = re.search(r"Row #(\d+)", text)
        where = f"row {row[1]}" if row else "a row"
        name = _column_of(error, names)
        if "UTF8" in text or "UTF-8" in text:
            raise _not_utf8(path, where) from None
        if name is not None:
            value = re.search(r"invalid value '(.*)'", text)
            what = repr(value[1]) if value else "a value"
            raise UserError(f"{path}: column {name!r}, {where}: {what} is not a number.") from None
        count = re.search(r"Expected (\d+) columns, got (\d+)", text)
        if count:
            raise UserError(
                f"{path}: {where}: {count[2]} columns where the header has {count[1]}; "
                "quote values that hold the separator."
            ) from None
        if "Empty CSV file" in text:
            raise _no_rows(path) from None
        raise UserError(f"{path}: is not a CSV file ({text.splitlines()[0]}).") from None
    raise UserError(f"{path}: changed while it was read; run this again.")


def _column_of(error: pa.ArrowInvalid, names: Sequence[str]) -> str | None:
    """The name of the column that a conversion error speaks of."""
    found = re.search(r"In CSV column #(\d+)", str(error))
    return names[int(found[1])] if found else None


def _check_no_gaps(path: Path, name: str, column: pa.ChunkedArray) -> None:
    is_string = pa.types.is_string(column.type)
    if column.null_count == 0 and not is_string:
        return
    gaps = pc.equal(column, "") if is_string else pc.is_null(column)
    first = pc.index(gaps, True).as_py()
    if first >= 0:
        raise UserError(
            f"{path}: column {name!r}, row {first + 2}: the value is missing; "
            "fill it in or remove the row."
        )


def _check_finite(path: Path, name: str, column: pa.ChunkedArray) -> None:
    first = pc.index(pc.is_finite(column), False).as_py()
    if first >= 0:
        raise UserError(f"{path}: column {name!r}, row {first + 2}: the rating is not finite.")


def _encode(column: pa.ChunkedArray) -> Ids:
    """Codes into the sorted distinct values of a column."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    values = encoded.dictionary.to_numpy(zero_copy_only=False)
    if values.dtype == object:
        values = values.astype(str)
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Ids(rank[encoded.indices.to_numpy()], values[order])


def _no_rows(path: Path) -> UserError:
    return UserError(f"{path}: holds a header but no rows.")


def _not_utf8(path: Path, where: str) -> UserError:
    return UserError(f"{path}: {where}: is not valid UTF-8; convert the file to UTF-8.")
