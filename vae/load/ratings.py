"""Reading a ratings file: two columns of ids, and one of ratings if there is one."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vae.errors import UserError

LONGEST_ID = 256
"""Characters; ids are stored at a fixed width, so that a single giant one would cost gigabytes."""

_BLOCK_BYTES = 4 << 20
_HEADER_BYTES = 1 << 20
_LIKELY_SEPARATORS = (",", "\t", ";", "|", "::")
_MOST_NAMED = 20
_ID = pa.dictionary(pa.int32(), pa.string())


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
    def types(self) -> dict[str, pa.DataType]:
        """The columns to read, and as what."""
        types = {self.user: _ID, self.item: _ID}
        return types if self.rating is None else types | {self.rating: pa.float64()}


@dataclass(frozen=True)
class Ids:
    """A column of ids as numbers that index the sorted distinct ids.

    Attributes:
        codes: (rows,) int32.
        values: distinct ids in ascending order, int64 or fixed-width unicode.
    """

    codes: NDArray[np.int32]
    values: NDArray[Any]


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
    """Reads a CSV file in parallel, one compressed by gzip, bzip2 or zstd too.

    Ids become integers if all of a column are plain ones, without plus sign or leading zero.

    Args:
        path: the file, UTF-8, with a header row.
        columns: the columns to read.
        threshold: rows with a lower rating are dropped.

    Raises:
        UserError: the file cannot be read, or a row of it has no id or no finite rating.
    """
    _check_header(path, columns)
    table = _read_table(path, columns)
    if table.num_rows == 0:
        raise _no_rows(path)
    kept = _kept(path, columns, table, threshold)
    users = _ids(path, columns.user, table[columns.user], kept)
    items = _ids(path, columns.item, table[columns.item], kept)
    if not kept.any():
        raise UserError(
            f"{path}: no row has a {columns.rating} of at least {threshold:g}; "
            "give a lower --threshold."
        )
    return Ratings(users, items, table.num_rows)


def _check_header(path: Path, columns: Columns) -> None:
    """Every wanted column stands in the header, once."""
    header = _read_header(path)
    found = _split(header, columns.separator)
    try:
        "".join(found).encode()
    except UnicodeEncodeError:
        raise _not_utf8(path, "row 1") from None
    for name in columns.types:
        if found.count(name) > 1:
            raise UserError(
                f"{path}: has {found.count(name)} columns named {name!r}; rename all but one."
            )
        if name not in found:
            named = ", ".join(repr(other[:100]) for other in found[:_MOST_NAMED])
            more = ", ..." if len(found) > _MOST_NAMED else ""
            raise UserError(
                f"{path}: has no column {name!r} but {named}{more}; {_advice(header, columns)}."
            )


def _read_header(path: Path) -> str:
    """The first row, without a byte-order mark, and what follows in its first megabyte."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the ratings file in it with --ratings.")
    try:
        with pa.input_stream(str(path), compression="detect") as file:
            start = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file; name the ratings file with --ratings."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    # Whether it is valid matters in the first row, and below in the wanted columns alone.
    header = bytes(start).decode("utf-8-sig", errors="surrogateescape")
    if not header.strip():
        raise UserError(f"{path}: is empty; a header row with the columns' names is needed.")
    return header


def _split(header: str, separator: str) -> list[str]:
    """The names in the first row that is not empty."""
    if len(separator) > 1:
        return header.splitlines()[0].split(separator)
    try:
        rows = csv.reader(io.StringIO(header, newline=""), delimiter=separator)
        return next(filter(None, rows), [])
    except csv.Error:  # a name longer than the csv module takes: this is no ratings file
        return header.split(separator)


def _advice(header: str, columns: Columns) -> str:
    for separator in _LIKELY_SEPARATORS:
        if separator != columns.separator and columns.user in _split(header, separator):
            mend = "give that as --sep" if len(separator) == 1 else "replace that by one character"
            return f"it looks separated by {separator!r}, {mend}"
    return "name the columns with --user_col, --item_col and --rating_col"


def _read_table(path: Path, columns: Columns) -> pa.Table:
    """The wanted columns, ids as the strings in the file, each distinct one stored once."""
    # One thread alone is slower, but knows the number of the row that it fails on.
    for use_threads in (True, False):
        try:
            return _parse(path, columns, use_threads)
        except OSError as error:
            raise _unreadable(path, error) from None
        except pa.ArrowException as error:
            complaint = str(error)
    raise _explained(path, columns, complaint)


def _parse(path: Path, columns: Columns, use_threads: bool) -> pa.Table:
    return pa_csv.read_csv(
        path,
        pa_csv.ReadOptions(use_threads=use_threads, block_size=_BLOCK_BYTES),
        pa_csv.ParseOptions(delimiter=columns.separator, newlines_in_values=True),
        pa_csv.ConvertOptions(include_columns=list(columns.types), column_types=columns.types),
    )


def _explained(path: Path, columns: Columns, text: str) -> UserError:
    """Arrow's complaint in this program's words."""
    if "Empty CSV file" in text:
        return _no_rows(path)
    row = re.search(r"Row #(\d+)", text)
    where = f"row {row[1]}" if row else "a row"
    if count := re.search(r"Expected (\d+) columns, got (\d+)", text):
        return UserError(
            f"{path}: {where}: {count[2]} columns where the header has {count[1]}; "
            "quote values that hold the separator."
        )
    if value := re.search(r"invalid value '(.*)'", text, re.DOTALL):
        return UserError(
            f"{path}: column {columns.rating!r}, {where}: {_short(value[1])!r} is not a number."
        )
    if "invalid UTF8" in text:
        return _not_utf8(path, where)
    return UserError(f"{path}: is not a CSV file ({_short(text)}).")


def _kept(path: Path, columns: Columns, table: pa.Table, threshold: float) -> NDArray[np.bool_]:
    """(rows,) which of them have a high enough rating."""
    if columns.rating is None:
        return np.ones(table.num_rows, bool)
    ratings = table[columns.rating]
    missing = pc.index(pc.is_null(ratings), True).as_py()
    if missing >= 0:
        raise _missing(path, columns.rating, missing)
    infinite = pc.index(pc.is_finite(ratings), False).as_py()
    if infinite >= 0:
        raise UserError(
            f"{path}: column {columns.rating!r}, row {infinite + 2}: the rating is not finite."
        )
    return np.asarray(pc.greater_equal(ratings, threshold))


def _ids(path: Path, name: str, column: pa.ChunkedArray, kept: NDArray[np.bool_]) -> Ids:
    """The kept rows of a column, as codes into their sorted distinct values."""
    chunks = column.unify_dictionaries().chunks
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    distinct = chunks[0].dictionary
    empty = pc.index(distinct, "").as_py()
    if empty >= 0:
        raise _missing(path, name, int(np.argmax(codes == empty)))
    values = _values(path, name, distinct)
    codes = codes[kept]
    used = np.zeros(len(values), bool)
    used[codes] = True
    order = np.argsort(values)
    order = order[used[order]]
    rank = np.empty(len(values), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Ids(rank[codes], values[order])


def _values(path: Path, name: str, distinct: pa.Array) -> NDArray[Any]:
    """Distinct ids as int64 where that loses nothing, as fixed-width unicode elsewhere."""
    try:
        integers = distinct.cast(pa.int64())
        if integers.cast(pa.string()).equals(distinct):
            return np.asarray(integers)
    except pa.ArrowInvalid:
        pass
    longest = pc.max(pc.utf8_length(distinct)).as_py()
    if longest > LONGEST_ID:
        raise UserError(
            f"{path}: column {name!r}: an id has {longest} characters, more than {LONGEST_ID}; "
            "look for an unclosed quote, or give shorter ids."
        )
    # NumPy drops NUL characters from the end of a string, and so might make two ids one.
    if pc.any(pc.match_substring(distinct, "\0")).as_py():
        raise UserError(f"{path}: column {name!r}: an id holds a NUL character; remove it.")
    return np.asarray(distinct.to_pylist(), np.str_)


def _no_rows(path: Path) -> UserError:
    return UserError(f"{path}: holds a header but no rows.")


def _missing(path: Path, name: str, place: int) -> UserError:
    return UserError(
        f"{path}: column {name!r}, row {place + 2}: the value is missing; "
        "fill it in or remove the row."
    )


def _not_utf8(path: Path, where: str) -> UserError:
    return UserError(f"{path}: {where}: is not valid UTF-8; convert the file to UTF-8.")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({_short(str(error))}).")


def _short(text: str) -> str:
    """Text from a file or a library on one line of at most 100 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"
