"""Tables in text, JSON lines and Parquet files, read block by block: columns of text or numbers."""

from __future__ import annotations

import codecs
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vae.errors import UserError, one_line
from vae.load.config import Columns
from vae.load.reading.files import (
    FIRST_BYTES,
    PARQUET_MAGIC,
    Digest,
    Source,
    check_format,
    decompressed,
    find_sources,
    reading,
)
from vae.load.reading.text import ONE_ROW_EACH, TextFile, Texts, is_encodable, not_utf8
from vae.load.reading.values import NUMBER
from vae.utils.threads import prefetch

_BLOCK_ROWS = 1 << 18
_PEEKED_BYTES = 64
_MAX_NAMED = 20
_PLAIN = (bool, int, float)
_PARQUET_DAMAGE = (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError)

_JSON_LINES = (
    "JSON files need one object per line: convert the file with jq -c '.[]' (an array), jq -c . "
    "(objects over several lines), json.dumps (Python's dictionaries) or pandas' "
    "to_json(orient='records', lines=True) (an object of columns)"
)

Select = Callable[[Sequence[str]], list[str]]
"""Takes the columns that a file has and returns those to read."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        path: the file.
        first_row: number of the first row, as an editor shows it: row 1 of a text file with a
            header is the header.
        values: the columns' values, by name.
    """

    path: Path
    first_row: int
    values: Mapping[str, Texts]


def read_texts(
    path: Path, names: Sequence[str], columns: Columns, advice: str = ""
) -> pd.DataFrame:
    """Read columns of a file as text.

    Args:
        path: text, JSON lines or Parquet file.
        names: columns to read.
        columns: format of text files.
        advice: how to fix a file that lacks a column.

    Returns:
        A frame with these columns; a missing value is an empty string.

    Raises:
        UserError: the file cannot be read or lacks one of the columns.
    """
    frames = []
    sources, _ = find_sources([path])
    for block in Tables(sources, columns, names, advice=advice).blocks():
        texts = {n: np.append(distinct, "")[codes] for n, (codes, distinct) in block.values.items()}
        frames.append(pd.DataFrame(texts, dtype=object))
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*set(names)])
    return table[list(names)]


class Tables:
    """The blocks of several files.

    Args:
        sources: the files.
        columns: format of text files.
        names: columns to read.
        optional: the one of them that a file may lack; None if there is none.
        advice: how to fix a file that lacks a column, if it is read beside the ratings: its
            separator and header need not be theirs. Empty for ratings: by the flags that name
            columns.
        time: the one of them that has times, which Parquet may store as such; None if there is
            none.
        lone: the one of them that a file may consist of.

    Attributes:
        digests: digests of the pipes among the files, once they are read.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        columns: Columns,
        names: Sequence[str],
        optional: str | None = None,
        advice: str = "",
        time: str | None = None,
        lone: str | None = None,
    ) -> None:
        self.digests: dict[Path, Digest] = {}
        self._sources = sources
        self._columns = columns
        self._names = tuple(dict.fromkeys(names))
        self._optional = optional
        self._advice = advice
        self._time = time
        self._lone = lone
        self._header: list[str] = []
        self._found: set[str] | None = None
        self._assumptions: dict[str, list[Path]] = {}
        self._line_breaks = 0

    @property
    def notes(self) -> list[str]:
        """Sentences on what was assumed about the files so far."""
        notes = [f"{named(paths)}: {what}." for what, paths in self._assumptions.items()]
        if self._line_breaks:
            notes.append(
                f"{self._line_breaks:,} line breaks are inside quoted values; if quotes are part "
                "of the values, each of them hides a row: prepare the data with --quoting none."
            )
        return notes

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of all files.

        Raises:
            UserError: a file cannot be used.
        """
        # Arrow's default allocator keeps freed memory and reserves addresses by the gigabyte.
        pa.set_memory_pool(pa.system_memory_pool())
        for source in self._sources:
            with reading(source.path):
                for block in self._read(source):
                    complete = self._with_constants(block, source)
                    self._check_columns(complete)
                    yield complete

    def _read(self, source: Source) -> Iterator[Block]:
        select = partial(self._select, source)
        numbers = (self._columns.rating, self._time)
        if source.table is not None:
            yield from _read_memory(source.path, source.table, select, *numbers)
            return
        if _is_parquet(source):
            yield from _read_parquet(source.path, select, *numbers)
            return
        digest = Digest() if source.is_pipe else None
        with decompressed(source.path, digest) as content:
            start = content.peek(_PEEKED_BYTES).removeprefix(codecs.BOM_UTF8)
            if start.lstrip()[:1] in (b"{", b"["):
                ids = (self._columns.user, self._columns.item, self._names[0])
                yield from _read_json(content, source.path, select, ids, self._time)
            else:
                yield from self._read_text(content, source)
        if digest is not None:
            self.digests[source.path] = digest

    def _read_text(self, content: io.BufferedReader, source: Source) -> Iterator[Block]:
        path, is_ratings = source.path, not self._advice
        file = TextFile(content, path, self._columns, partial(self._fits, source), is_ratings)
        if not file.sample:
            if source.is_part:
                return
            raise UserError(f"{path}: is empty; add a header row with the names of the columns.")
        header, has_header, note = self._find_header(source, file.sample)
        self._header = self._header or header
        names = self._select(source, header)
        positions = [header.index(name) for name in names]
        if file.note:
            fix = "; prepare the data with --sep to set it" if is_ratings else ""
            self._assume(f"{file.note}{fix}", path)
        if note:
            self._assume(note, path)
        for rows in prefetch(file.rows(has_header)):
            values = file.parse(rows, positions)
            yield Block(path, rows.first, dict(zip(names, values, strict=True)))
        self._line_breaks += file.line_breaks

    def _assume(self, what: str, path: Path) -> None:
        self._assumptions.setdefault(what, []).append(path)

    def _fits(self, source: Source, rows: list[list[str]]) -> bool:
        """Return whether first rows of a text file have the columns that are needed."""
        names, has_header, _ = self._find_header(source, rows)
        is_uniform = len({len(row) for row in rows}) == 1
        if self._columns.header:
            has_names = set(self._required(source)) <= set(names) or names == [self._lone]
            return has_names and (has_header or is_uniform)
        required = set(self._required(source))
        if self._lone is not None:  # without names, several columns are what shows the separator
            required = set(self._names) - {self._columns.rating}
        return is_uniform and required <= set(names)

    def _find_header(self, source: Source, rows: list[list[str]]) -> tuple[list[str], bool, str]:
        """Return the columns of a text file by its first rows.

        Returns:
            Their names or numbers, whether the first row is a header, and what was assumed.
        """
        first, required = rows[0], self._required(source)
        if not self._columns.header:
            names = [str(number) for number in range(len(first))]
            if self._lone is not None and names == ["0"]:
                names = [self._lone]
            return names, False, ""
        if set(required) <= set(first) or first == [self._lone]:
            return first, True, ""
        has_number = any(map(NUMBER.fullmatch, first))
        # Without a number, only a part of a folder is taken for data: the names may be other ones.
        may_continue = (source.is_part or has_number) and len(first) == len(self._header)
        if may_continue and not _is_header(rows):
            return self._header, False, "no header row, read with that of the first part"
        if self._advice and has_number:
            user, item = self._columns.user, self._columns.item
            # Of histories, one column may be of users or items, and a third one of times.
            alone = [item] if self._lone == item else []
            for names in (alone, required, [user, item] if self._optional == user else []):
                if len(names) == len(first):
                    columns = ", ".join(names)
                    return names, False, f"no header row; its columns are taken as {columns}"
        return first, True, ""

    def _required(self, source: Source) -> list[str]:
        names = (name for name in self._names if name != self._optional)
        return [name for name in names if name not in source.constants]

    def _check_columns(self, block: Block) -> None:
        """Check that all blocks have the same columns.

        Raises:
            UserError: a column comes or goes, which would change what the rows before it mean.
        """
        before, now = self._found or set(block.values), set(block.values)
        for name in before ^ now:
            has, rest = ("a", " not") if name in now else ("no", "")
            raise UserError(
                f"{block.path}: row {block.first_row}: has {has} column {name!r}, which the rows "
                f"before have{rest}; give it to all rows or to none."
            )
        self._found = now

    def _select(self, source: Source, found: Sequence[str]) -> list[str]:
        """Return the columns to read of those that a file has.

        Raises:
            UserError: a column is missing or exists twice.
        """
        required = self._required(source)
        if self._lone is not None and list(found) == [self._lone]:
            return [self._lone]
        _check_names(source.path, found, required, self._columns, self._advice, self._time)
        return [*required, *(name for name in found if name == self._optional)]

    def _with_constants(self, block: Block, source: Source) -> Block:
        """Add the columns that the names of the file's folders give."""
        rows = len(next(iter(block.values.values()))[0]) if block.values else 0
        constants = {
            name: (np.zeros(rows, np.int8), np.array([value], object))
            for name, value in source.constants.items()
            if name in self._names and name not in block.values
        }
        return Block(block.path, block.first_row, {**block.values, **constants})


def _is_header(rows: list[list[str]]) -> bool:
    """Return whether the first row has no digit although a column below it is all numbers."""
    if len(rows) < 2 or any(re.search("[0-9]", value) or not value for value in rows[0]):
        return False
    columns = zip(*rows[1:], strict=False)
    return any(all(map(NUMBER.fullmatch, values)) for values in columns)


def named(paths: Sequence[Path]) -> str:
    """Return the first of several paths, and how many more there are."""
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])


def _check_names(
    path: Path,
    found: Sequence[str],
    required: Sequence[str],
    columns: Columns,
    advice: str,
    time: str | None,
) -> None:
    """Check that every required column exists exactly once.

    Raises:
        UserError: a column is missing or exists twice.
    """
    for name in required:
        if found.count(name) > 1:
            raise UserError(
                f"{path}: has {found.count(name)} columns named {name!r}; rename all but one."
            )
        if name not in found:
            others = ", ".join(repr(other[:100]) for other in found[:_MAX_NAMED])
            more = ", ..." if len(found) > _MAX_NAMED else ""
            if not all(map(is_encodable, found)):
                raise not_utf8(path, "row 1")
            fix = _fix(found, name, columns, advice, time)
            if any("\0" in other for other in found):
                fix = "prepare the data with --encoding, e.g. utf-16-le"
            if more:
                fix += (
                    "; if each column is an item, one row per interaction is needed, as pandas' "
                    "DataFrame.melt makes of them"
                )
            raise UserError(f"{path}: has no column {name!r} but {others}{more}; {fix}.")


def _fix(found: Sequence[str], name: str, columns: Columns, advice: str, time: str | None) -> str:
    """Return how to fix a file without a column of this name."""
    if any("\n" in other for other in found):
        return "close the quote that opens in row 1"
    if advice:
        return advice
    if not columns.header:
        return "columns are numbered from 0; pass --sep if the values are split in another way"
    if any(map(NUMBER.fullmatch, found)):
        return (
            "row 1 looks like data: for a file without a header pass --no_header and the numbers "
            "of the columns, such as --user_col 0 --item_col 1 --rating_col 2"
        )
    if name == columns.rating and {columns.user, columns.item} <= set(found):
        return "name the column of ratings with --rating_col, or pass --rating_col none"
    if name == time and {columns.user, columns.item} <= set(found):
        return "name the column of times with --time_col"
    if len(found) == 1:
        return "name the separator with --sep, such as ';' or '\\t'"
    return "name the columns with --user_col, --item_col and --rating_col"


def _read_json(
    content: io.BufferedReader, path: Path, select: Select, ids: Sequence[str], time: str | None
) -> Iterator[Block]:
    """Yield JSON lines: one object per line, whose keys are the columns."""
    text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape")
    filled = ((row, line) for row, line in enumerate(text, 1) if not line.isspace())
    keys: dict[str, None] = {}  # of all objects so far, in order
    plain: dict[str | None, tuple[type, ...]] = {time: (int, float), **dict.fromkeys(ids, ())}
    while part := list(itertools.islice(filled, _BLOCK_ROWS)):
        documents = [(row, _parse_json(path, row, line)) for row, line in part]
        for _, document in documents:
            keys.update(dict.fromkeys(document))
        values = {
            name: pd.factorize(
                np.array(
                    [
                        _json_text(path, row, name, document.get(name), plain.get(name, _PLAIN))
                        for row, document in documents
                    ],
                    object,
                )
            )
            for name in select(list(keys))
        }
        yield Block(path, part[0][0], values)


def _parse_json(path: Path, row: int, line: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        # In the first row it is the shape of the file, in a later one that row.
        problem = f" ({one_line(error)})" if row > 1 else f" of one interaction; {_JSON_LINES}"
        raise UserError(f"{path}: row {row}: is not a JSON object{problem}.") from None
    if not isinstance(document, dict) or (
        document and all(isinstance(value, (dict, list)) for value in document.values())
    ):
        raise UserError(
            f"{path}: row {row}: is not a JSON object of one interaction; {_JSON_LINES}."
        )
    return document


def _json_text(path: Path, row: int, name: str, value: Any, plain: tuple[type, ...]) -> str | None:
    """Return a value of a JSON object as text; None for a missing one.

    Args:
        path: the file.
        row: number of the row.
        name: the column.
        value: its value in the row.
        plain: types of the numbers that need not be ids.

    Raises:
        UserError: the value is neither text nor a number, or a number that is no id.
    """
    where = f"{path}: column {name!r}, row {row}"
    if value is None:
        return None
    if isinstance(value, str):
        if not is_encodable(value):
            raise not_utf8(path, f"row {row}")
        return value
    if type(value) in plain:
        return str(value)
    if type(value) in (int, float):
        try:
            return _id_text(value)
        except ValueError as error:
            raise UserError(f"{where}: {error}.") from None
    fix = ONE_ROW_EACH if isinstance(value, list) else "convert it to text"
    shown = one_line(json.dumps(value))
    raise UserError(f"{where}: {shown} is neither a number nor text; {fix}.")


def _is_parquet(source: Source) -> bool:
    if source.is_pipe:
        return False
    size = len(PARQUET_MAGIC)
    with source.path.open("rb") as file:
        start = file.read(FIRST_BYTES)
        if source.path.suffix.lower() == ".parquet":
            check_format(source.path, start)  # such as a pointer
            return True
        file.seek(-min(size, len(start)), 2)
        return start[:size] == file.read() == PARQUET_MAGIC


def _read_parquet(
    path: Path, select: Select, rating: str | None, time: str | None
) -> Iterator[Block]:
    """Yield the rows of a Parquet file, which are numbered from 1."""
    rows = 0
    try:
        with (
            path.open("rb") as raw,  # any name, not UTF-8 alone
            pq.ParquetFile(raw, page_checksum_verification=True) as file,
        ):
            names = select(file.schema_arrow.names)
            if file.metadata.num_rows == 0:  # an empty file may have columns without a type
                return
            types = _column_types(path, file.schema_arrow, names, rating, time)
            for batch in file.iter_batches(_BLOCK_ROWS, columns=names):
                yield _arrow_block(path, rows + 1, batch, types, rating, time)
                rows += len(batch)
            if rows != file.metadata.num_rows:  # a damaged row group may end early
                raise ValueError(f"only {rows} of {file.metadata.num_rows} rows are present")
    except FileNotFoundError:
        raise
    except (*_PARQUET_DAMAGE, ValueError) as error:
        raise UserError(f"{path}: is not a readable Parquet file ({one_line(error)}).") from None


def _read_memory(
    path: Path, table: pa.Table, select: Select, rating: str | None, time: str | None
) -> Iterator[Block]:
    """Yield the rows of a table in memory, which are numbered from 1."""
    names = select(table.schema.names)
    if not len(table):
        return
    types = _column_types(path, table.schema, names, rating, time)
    first_row = 1
    for batch in table.to_batches(_BLOCK_ROWS):
        yield _arrow_block(path, first_row, batch, types, rating, time)
        first_row += len(batch)


def _column_types(
    path: Path, schema: pa.Schema, names: Sequence[str], rating: str | None, time: str | None
) -> dict[str, pa.DataType]:
    """Return the type of each column.

    Raises:
        UserError: a column has the type of neither ids, ratings nor times.
    """
    types = {name: schema.field(name).type for name in names}
    for name, kind in types.items():
        if name != time or not pa.types.is_temporal(kind):
            _check_type(path, name, kind, name == rating)
    return types


def _arrow_block(
    path: Path,
    first_row: int,
    batch: pa.RecordBatch,
    types: Mapping[str, pa.DataType],
    rating: str | None,
    time: str | None,
) -> Block:
    values = {
        name: _arrow_numbers(batch[name])
        if name == rating or (name == time and not _holds_texts(kind))
        else _arrow_texts(path, name, first_row, batch[name])
        for name, kind in types.items()
    }
    return Block(path, first_row, values)


def _check_type(path: Path, name: str, kind: pa.DataType, is_rating: bool) -> None:
    """Refuse types that are no ids or no ratings."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if is_rating:
        is_usable, needed = is_number or pa.types.is_boolean(kind), "numbers"
    else:
        is_usable, needed = is_number or _is_text(kind), "integers or strings"
    if not is_usable:
        fix = ONE_ROW_EACH if pa.types.is_nested(kind) else f"convert it to {needed}"
        raise UserError(f"{path}: column {name!r} has the type {kind}; {fix}.")


def _is_text(kind: pa.DataType) -> bool:
    texts = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return str(kind) in texts


def _holds_texts(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_dictionary(kind)


def _arrow_texts(path: Path, name: str, first_row: int, column: pa.Array) -> Texts:
    """Return a column of ids or titles as text."""
    # The dictionary may be that of the whole file: only the values of these rows matter.
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        column = column.cast(pa.large_binary())
    encoded = column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    texts = []
    for code, value in enumerate(encoded.dictionary.to_pylist()):
        try:
            texts.append(value.decode() if isinstance(value, bytes) else _id_text(value))
        except ValueError as error:
            row = first_row + int(np.argmax(codes == code))
            where = f"column {name!r}, row {row}"
            if isinstance(error, UnicodeDecodeError):
                raise not_utf8(path, where) from None
            raise UserError(f"{path}: {where}: {error}.") from None
    return codes, np.array(texts, object)


def _id_text(value: float | Decimal) -> str:
    """Return a whole number as text, without point or exponent; "" for NaN.

    Raises:
        ValueError: the number is not whole, or a float beyond 2^53, which has lost digits.
    """
    if value != value:
        return ""
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{value} is not an integer")
    if isinstance(value, float) and abs(value) > 2**53:
        raise ValueError(f"{value} has lost digits; store ids as integers or strings")
    return str(int(value))


def _arrow_numbers(column: pa.Array) -> Texts:
    """Return a column of ratings or times as floating-point numbers, by codes.

    Dates are in seconds since 1970.
    """
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        seconds = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) / 1e6
        codes, times = pd.factorize(seconds)
        return codes, times
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # which rounds correctly
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False)
    codes, ratings = pd.factorize(column.to_numpy(zero_copy_only=False))
    return codes, ratings
