"""Ratings in a text file with a header row: CSV, TSV and the like, optionally compressed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from vae.errors import UserError, one_line
from vae.load.blocks import ID, Block, check_names, not_utf8, unreadable
from vae.load.columns import MINIMAL, NONE, Columns
from vae.load.quotes import check_quotes

_BLOCK_BYTES = 1 << 20
_HEADER_BYTES = 1 << 20
_LIKELY_SEPARATORS = (",", "\t", ";", "|", "::")
_FIRST_ROW = 2


def csv_column_names(path: Path, separator: str | None, quoting: str = MINIMAL) -> list[str]:
    """Return the names in the header row.

    Raises:
        UserError: the file cannot be read or has no header row in UTF-8.
    """
    names = _split(_read_header(path), _separator(path, separator), quoting)
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        raise not_utf8(path, "row 1") from None
    return names


def read_csv(path: Path, columns: Columns) -> Iterator[Block]:
    """Yield a file block by block; it may be compressed with gzip, bzip2 or zstd.

    Raises:
        UserError: the file cannot be read, is not in UTF-8, or has a row with another number of
            columns, a malformed quoted value, or a rating that is not a number.
    """
    names = csv_column_names(path, columns.separator, columns.quoting)
    check_names(path, names, columns, _fix(path, columns))
    row = _FIRST_ROW
    try:
        line_breaks = 0
        if columns.quoting == MINIMAL:
            line_breaks = check_quotes(path, _separator(path, columns.separator))
        for batch in _open(path, columns):
            ratings = None if columns.rating is None else batch[columns.rating]
            yield Block(path, row, batch[columns.user], batch[columns.item], ratings, line_breaks)
            row, line_breaks = row + len(batch), 0
    except OSError as error:
        raise unreadable(path, error) from None
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise _explained(path, columns, row, str(error)) from None


def _open(path: Path, columns: Columns) -> pa_csv.CSVStreamingReader:
    may_quote = columns.quoting == MINIMAL
    types = {columns.user: ID, columns.item: ID}
    if columns.rating is not None:
        types[columns.rating] = pa.float64()
    return pa_csv.open_csv(
        path,
        # Threads do not speed up a streaming reader, and without them errors have row numbers.
        pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        pa_csv.ParseOptions(
            delimiter=_separator(path, columns.separator),
            quote_char='"' if may_quote else False,
            double_quote=may_quote,
            newlines_in_values=may_quote,
        ),
        pa_csv.ConvertOptions(include_columns=list(types), column_types=types),
    )


def _separator(path: Path, separator: str | None) -> str:
    return separator or ("\t" if ".tsv" in path.suffixes else ",")


def _read_header(path: Path) -> str:
    """Return the first megabyte of a file, without a byte-order mark."""
    try:
        with pa.input_stream(str(path), compression="detect") as file:
            start = file.read(_HEADER_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    # Invalid UTF-8 is an error in the first row and, below it, in the required columns only.
    header = bytes(start).decode("utf-8-sig", errors="surrogateescape")
    if not header.strip():
        raise UserError(f"{path}: is empty; add a header row with the names of the columns.")
    return header


def _split(header: str, separator: str, quoting: str) -> list[str]:
    """Return the names in the first row that is not empty."""
    if len(separator) > 1:
        return header.splitlines()[0].split(separator)
    lines = io.StringIO(header, newline="")
    try:
        if quoting == NONE:
            rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines, delimiter=separator)
        return next(filter(None, rows), [])
    except csv.Error:  # a name exceeds the csv module's limit: this is not a ratings file
        return header.split(separator)


def _fix(path: Path, columns: Columns) -> str:
    """Return how to fix a header row with an unclosed quote or another separator."""
    header, used = _read_header(path), _separator(path, columns.separator)
    if any("\n" in name for name in _split(header, used, columns.quoting)):
        return "close the quote that opens in row 1"
    for separator in _LIKELY_SEPARATORS:
        if separator != used and columns.user in _split(header, separator, columns.quoting):
            fix = "pass that as --sep" if len(separator) == 1 else "replace that by one character"
            return f"the separator seems to be {separator!r}, {fix}"
    return ""


def _explained(path: Path, columns: Columns, row: int, text: str) -> UserError:
    """Translate an error of Arrow.

    Args:
        path: ratings file.
        columns: required columns.
        row: number of the first row that Arrow has not yielded.
        text: Arrow's message.
    """
    found = re.search(r"Row #(\d+)", text)
    where = f"row {found[1] if found else row}"
    if count := re.search(r"Expected (\d+) columns, got (\d+)", text):
        fix = "quote values that contain the separator"
        if columns.quoting == NONE:
            fix = "remove the separator from values, or quote them and drop --quoting none"
        return UserError(
            f"{path}: {where}: {count[2]} columns where the header has {count[1]}; {fix}."
        )
    if value := re.search(r"invalid value '(.*)'", text, re.DOTALL):
        return UserError(
            f"{path}: column {columns.rating!r}, {where}: {one_line(value[1])!r} is not a number."
        )
    if "invalid UTF8" in text:
        return not_utf8(path, where)
    if "straddles" in text:
        return UserError(
            f"{path}: {where} or one soon after it has more than {_BLOCK_BYTES:,} bytes; "
            "look for an unclosed quote."
        )
    return UserError(f"{path}: {where}: is not valid CSV ({one_line(text)}).")
