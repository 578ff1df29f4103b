"""Tables in text, JSON lines and Parquet files, read block by block: columns of text or numbers.

Raises:
    UserError: a file lacks a column, or a row or a type of it cannot be used; below ``Tables``
        and ``read_texts`` a ``FileError``.
"""

from __future__ import annotations

import codecs
import io
import json
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vae.errors import one_line
from vae.load.config import WHITESPACE, Columns
from vae.load.reading.files import (
    FileError,
    Source,
    decompressed,
    find_sources,
    is_parquet,
    reading,
)
from vae.load.reading.header import Wanted
from vae.load.reading.text import NOT_UTF8, ONE_ROW_EACH, CodedColumn, TextFile, coded_texts, shown

BLOCK_ROWS = 1 << 18
_TEXT_TYPES = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")

_JSON_LINES = (
    "JSON files need one object per line: convert the file with jq -c '.[]' (an array), jq -c . "
    "(objects over several lines), json.dumps (Python's dictionaries) or pandas' "
    "to_json(orient='records', lines=True) (an object of columns)"
)


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        rows: number of each row, as an editor shows it: row 1 of a text file with a header is the
            header; of lists, the row of each interaction.
        columns: the columns that were read, by name.
    """

    path: Path
    rows: Sequence[int]
    columns: dict[str, CodedColumn]

    def __len__(self) -> int:
        return len(self.rows)

    def error(self, name: str, position: int, problem: object, text: str = "") -> FileError:
        """Return the error for a value, the text of whose row follows its place."""
        return FileError(f"column {name!r}, row {self.rows[position]}{shown(text)}: {problem}")

    def text(self, position: int) -> str:
        """Return the values that were read of a row, shortened."""
        return one_line(",".join(str(self.value(name, position)) for name in self.columns))

    def value(self, name: str, position: int) -> Any:
        """Return a value; an empty text for a missing one."""
        codes, values = self.columns[name]
        return values[codes[position]] if codes[position] >= 0 else ""


def read_texts(
    path: Path, names: Sequence[str], columns: Columns, advice: str = ""
) -> pd.DataFrame:
    """Return columns of a file as text, in which a missing value is empty.

    ``advice`` says how to fix a file that lacks one of them.
    """
    frames = [pd.DataFrame(columns=[*dict.fromkeys(names)], dtype=object)]
    sources, _ = find_sources([path])
    for block in Tables(sources, Wanted(columns, names, advice=advice)).blocks():
        texts = {n: np.append(values, "")[codes] for n, (codes, values) in block.columns.items()}
        frames.append(pd.DataFrame(texts, dtype=object))
    return pd.concat(frames, ignore_index=True)[list(names)]


class Tables:
    """The blocks of several files, of ``block_rows`` rows approximately."""

    def __init__(
        self, sources: Sequence[Source], wanted: Wanted, block_rows: int = BLOCK_ROWS
    ) -> None:
        self._sources = sources
        self._wanted = wanted
        self._block_rows = block_rows
        self._names_before: set[str] = set()
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

    def blocks(self) -> Generator[Block, None, None]:
        """Yield the blocks of all files, each with the same columns."""
        # Arrow's default allocator keeps freed memory and reserves addresses by the gigabyte.
        pa.set_memory_pool(pa.system_memory_pool())
        for source in self._sources:
            with reading(source.path):
                for block in self._read(source):
                    for name, value in source.constants.items():
                        if name in self._wanted.names and name not in block.columns:
                            codes = np.zeros(len(block), np.int8)
                            block.columns[name] = CodedColumn(codes, np.array([value], object))
                    self._check_columns(block)
                    yield block

    def _check_columns(self, block: Block) -> None:
        """Refuse a column that comes or goes: it would change what the rows before it mean."""
        names, before = set(block.columns), self._names_before or set(block.columns)
        for name in names ^ before:
            has, rest = ("a", " not") if name in names else ("no", "")
            raise FileError(
                f"row {block.rows[0]}: has {has} column {name!r}, which the rows before "
                f"have{rest}; give it to all rows or to none"
            )
        self._names_before = names

    def _read(self, source: Source) -> Iterator[Block]:
        size, wanted, table = self._block_rows, self._wanted, source.table
        if table is not None:
            batches = table.select(wanted.select(source, table.column_names)).to_batches(size)
            yield from _arrow_blocks(source.path, batches, wanted)
        elif is_parquet(source):
            yield from _arrow_blocks(source.path, _parquet_batches(source, wanted, size), wanted)
        else:
            with decompressed(source.path) as content:
                start = content.peek(64).removeprefix(codecs.BOM_UTF8)
                if start.lstrip()[:1] in (b"{", b"["):
                    yield from _read_json(content, source, wanted, size)
                else:
                    yield from self._read_text(content, source)

    def _read_text(self, content: io.BufferedReader, source: Source) -> Iterator[Block]:
        wanted = self._wanted
        file = TextFile(content, wanted.columns, self._block_rows)
        if wanted.lists:
            separator, names = wanted.columns.separator or WHITESPACE, [*wanted.names]
            positions, sample = None, file.split(separator)
            if wanted.allow_single_column and sample and not any(row[1:] for row in sample):
                names, positions = [wanted.allow_single_column], [0]
            for rows, columns in file.blocks(separator, positions, 0):
                yield Block(source.path, rows, dict(zip(names, columns, strict=True)))
            return
        separator, guess = wanted.find_separator(source, file)
        sample = file.split(separator)
        if not sample:
            if source.is_part:
                return
            raise FileError("is empty; add a header row with the names of the columns")
        header, has_header, note = wanted.find_header(source, sample)
        wanted.first_header = wanted.first_header or header
        names = wanted.select(source, header)
        for what in filter(None, (guess, note)):
            self._assumptions.setdefault(what, []).append(source.path)
        if not names:  # the folders give all columns
            return
        positions = [header.index(name) for name in names]
        for rows, columns in file.blocks(separator, positions, int(has_header)):
            yield Block(source.path, rows, dict(zip(names, columns, strict=True)))
        self._line_breaks += file.line_breaks


def named(paths: Sequence[Path]) -> str:
    """Return the first of several paths, and how many more there are."""
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])


def _read_json(
    content: io.BufferedReader, source: Source, wanted: Wanted, block_rows: int
) -> Iterator[Block]:
    """Yield JSON lines: one object per line, whose keys are the columns."""
    ids = (wanted.columns.user, wanted.columns.item, wanted.names[0])
    text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape")
    lines = filter(str.strip, text)
    keys: dict[str, None] = {}  # of all objects so far, in order
    first_row = 1
    while part := [*islice(lines, block_rows)]:
        rows = range(first_row, first_row + len(part))
        documents = [_parse_json(row, line) for row, line in zip(rows, part, strict=True)]
        for document in documents:
            keys.update(dict.fromkeys(document))
        block = Block(source.path, rows, {})
        for name in wanted.select(source, list(keys)):
            texts: list[str | None] = []
            try:
                for document in documents:
                    texts.append(_json_text(document.get(name), name in ids))
            except ValueError as error:
                raise block.error(name, len(texts), error) from None
            block.columns[name] = coded_texts(texts, rows)
        yield block
        first_row = rows.stop


def _parse_json(row: int, line: str) -> dict[str, Any]:
    reason = ""
    try:
        document: dict[str, Any] = json.loads(line)
        if document == {} or any(not isinstance(v, (dict, list)) for v in document.values()):
            return document
    except AttributeError:  # not an object
        pass
    except (ValueError, RecursionError) as error:
        reason = one_line(error)
    # In the first row it is the shape of the file, in a later one that row.
    problem = f" ({reason})" if reason and row > 1 else f" of one interaction; {_JSON_LINES}"
    raise FileError(f"row {row}{shown(line)}: is not a JSON object{problem}")


def _json_text(value: Any, is_id: bool) -> str | None:
    """Return a value of a JSON object as text, None for a missing one, or raise a ValueError."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not (is_id and isinstance(value, bool)):
        return _id_text(value) if is_id else str(value)
    fix = ONE_ROW_EACH if isinstance(value, list) else "convert it to text"
    raise ValueError(f"{one_line(json.dumps(value))} is neither a number nor text; {fix}")


def _id_text(value: float | Decimal) -> str:
    """Return a whole number as text, without point or exponent, and "" for NaN.

    A number that is not whole, or a float beyond 2^53, which has lost digits, is a ValueError.
    """
    if value != value:
        return ""
    has_lost_digits = isinstance(value, float) and abs(value) > 2**53
    if not math.isfinite(value) or value != int(value) or has_lost_digits:
        raise ValueError(f"{value} is not an exact integer; store ids as integers or strings")
    return str(int(value))


def _parquet_batches(source: Source, wanted: Wanted, block_rows: int) -> Iterator[pa.RecordBatch]:
    with (
        source.path.open("rb") as raw,  # any name, not UTF-8 alone
        pq.ParquetFile(raw, page_checksum_verification=True) as file,
    ):
        rows, all_rows = 0, file.metadata.num_rows
        columns = wanted.select(source, file.schema_arrow.names)
        for batch in file.iter_batches(block_rows, columns=columns):
            rows += len(batch)
            yield batch
        if rows != all_rows:  # a damaged row group may end early
            raise FileError(f"is damaged, with {rows} of {all_rows} rows; copy it again")


def _arrow_blocks(path: Path, batches: Iterable[pa.RecordBatch], wanted: Wanted) -> Iterator[Block]:
    """Yield the rows of Arrow's batches, which have the columns to read and are numbered from 1."""
    rating, time, first_row = wanted.columns.rating, wanted.time, 1
    for batch in filter(len, batches):  # without rows, columns may lack a type
        block = Block(path, range(first_row, first_row + len(batch)), {})
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            # The dictionary may be that of the whole file: only the values of these rows matter.
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            _check_type(name, column.type, name == rating, name == time)
            if str(column.type) not in _TEXT_TYPES and name in (rating, time):
                block.columns[name] = _arrow_numbers(column)
            else:
                block.columns[name] = _arrow_texts(block, name, column)
        yield block
        first_row += len(batch)


def _check_type(name: str, kind: pa.DataType, is_rating: bool, is_time: bool) -> None:
    """Refuse types that are neither text nor numbers, nor in place as ratings or times."""
    types = pa.types
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    is_number |= is_rating and types.is_boolean(kind)
    is_number |= is_time and (types.is_date(kind) or types.is_timestamp(kind))
    if not is_number and str(kind) not in _TEXT_TYPES:
        fix = ONE_ROW_EACH if types.is_nested(kind) else "convert it to numbers or strings"
        raise FileError(f"column {name!r} has the type {kind}; {fix}")


def _arrow_texts(block: Block, name: str, column: pa.Array) -> CodedColumn:
    """Return a column of ids or titles as text."""
    if str(column.type) in _TEXT_TYPES:
        column = column.cast(pa.large_binary())
    encoded = column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    texts = []
    for code, value in enumerate(encoded.dictionary.to_pylist()):
        try:
            texts.append(value.decode() if isinstance(value, bytes) else _id_text(value))
        except ValueError as error:
            problem = NOT_UTF8 if isinstance(error, UnicodeDecodeError) else error
            raise block.error(name, int(np.argmax(codes == code)), problem) from None
    return CodedColumn(codes, np.array(texts, object))


def _arrow_numbers(column: pa.Array) -> CodedColumn:
    """Return a column of ratings or times; dates are in seconds since 1970."""
    kind, unit = column.type, 1.0
    if pa.types.is_temporal(kind):
        column, unit = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()), 1e6
    if pa.types.is_decimal(kind):
        column = column.cast(pa.string())  # which rounds correctly
    if not pa.types.is_floating(kind):
        column = column.cast(pa.float64(), safe=False)
    numbers = column.to_numpy(zero_copy_only=False)
    return CodedColumn(*pd.factorize(numbers if unit == 1 else numbers / unit))
