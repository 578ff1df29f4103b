"""Rows of text files (CSV, TSV and the like): encoding, separator, and values by column.

Arrow parses blocks without a quote, at several million rows per second. It would take a quote that
is data for an opening one, and lose rows without a word: from the first quote on, the ``csv``
module reads the file, which is strict about quotes. It also says what is wrong with a block that
Arrow refuses.

Raises:
    FileError: the encoding is another, a row has another number of values than the first one, or a
        quoted value is malformed.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vae.errors import one_line
from vae.load.config import MINIMAL, WHITESPACE, Columns
from vae.load.reading.files import FileError
from vae.utils.threads import prefetch

_MAX_ROW = 1 << 21
"""Bytes of a row, and characters of a quoted value."""

_SAMPLE_ROWS = 20
_ROW_BYTES = 32
_UNIT_SEPARATOR = b"\x1f"
"""Replaces separators of several characters; text does not contain it."""

_QUOTING: dict[bool, Literal[0, 3]] = {True: csv.QUOTE_MINIMAL, False: csv.QUOTE_NONE}

ONE_ROW_EACH = "one row per interaction is needed, as pandas' DataFrame.explode makes of lists"
"""What to do about many items in one value."""

_ESCAPE = "surrogateescape"
UNDECODED = re.compile("[\ud800-\udfff]")
"""Characters that stand for bytes that are not UTF-8."""

NOT_UTF8 = "is not valid UTF-8; prepare the data with --encoding, e.g. latin-1"

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BLANK_LINES = re.compile(rb"\A(?:[ \t]*[\r\n]+)+")
_MARK_BEFORE_ROW = re.compile(rb"(?:\A|[\r\n])\xef\xbb\xbf")


class CodedColumn(NamedTuple):
    """Values of consecutive rows.

    Attributes:
        codes: (rows,) int32 or int64, index of each row's value; -1 for a missing one.
        values: (distinct,) strings or floating-point numbers.
    """

    codes: NDArray[Any]
    values: NDArray[Any]


CodedRows = tuple[Sequence[int], list[CodedColumn]]
"""The numbers of consecutive rows, and columns of them."""


class _LineError(Exception):
    """How many rows of its block come before a wrong one, and what is wrong with it.

    Lines are cut ahead of their use, when the number of rows in earlier blocks is not known yet.
    """


class TextFile:
    """A text file whose first rows can be looked at.

    Attributes:
        line_breaks: number of line breaks inside quoted values so far.
    """

    def __init__(self, content: io.BufferedReader, layout: Columns, block_rows: int) -> None:
        self._layout, self._block_rows = layout, block_rows
        blocks = _utf8_blocks(content, layout.encoding, _ROW_BYTES * block_rows)
        first = next(blocks, b"")
        self._blocks = chain([first], blocks)
        lines = io.StringIO(first[:_MAX_ROW].decode(errors=_ESCAPE), newline=None)
        comment = layout.comment or "\n"  # with which no line that is not blank begins
        rows = (line for line in lines if line.strip() and not line.startswith(comment))
        self._sample = "".join(islice(rows, _SAMPLE_ROWS)).encode(errors=_ESCAPE)
        self.line_breaks = 0
        self._row = 1  # the next one; empty lines and comments do not count

    def split(self, separator: str) -> list[list[str]]:
        """Return the values of the first rows; none if the file is empty, or no ratings file."""
        is_single = len(separator) == 1
        self._separator = separator
        self._delimiter = separator if is_single else _UNIT_SEPARATOR.decode()
        self._is_quoted = is_single and self._layout.quoting == MINIMAL
        try:
            return list(self._reader([self._normalised(self._sample)], strict=False))
        except csv.Error:  # such as a value beyond the limit
            return []

    def blocks(
        self, separator: str, positions: Sequence[int] | None, skip: int
    ) -> Iterator[CodedRows]:
        """Yield the numbers of consecutive rows, and some columns as text.

        Args:
            separator: characters between columns, or ``WHITESPACE``.
            positions: positions of the columns; None for users and items of rows that are lists,
                ``user item item ...``.
            skip: 1 to skip the header row, else 0.
        """
        self._widths = [len(row) for row in self.split(separator)]
        self._positions = positions or ()
        try:
            # Closed before the file is, also where an error keeps what reads the lines.
            with closing(prefetch(map(self._normalised, self._whole_lines()))) as blocks:
                if positions is None:
                    yield from map(self._lists, blocks)
                else:
                    yield from self._coded_blocks(blocks, skip)
        except _LineError as error:
            before, problem = error.args
            raise FileError(f"row {self._row + before}: {problem}") from None

    def _lists(self, block: bytes) -> CodedRows:
        lines = filter(bytes.strip, block.splitlines())
        lists = [line.decode(errors=_ESCAPE).split(self._delimiter) for line in lines]
        rows = [row for row, ids in enumerate(lists, self._row) for _ in ids[1:]]
        users = [ids[0] for ids in lists for _ in ids[1:]]
        items = [item for ids in lists for item in ids[1:]]
        self._row += len(lists)
        return rows, [coded_texts(users, rows), coded_texts(items, rows)]

    def _coded_blocks(self, blocks: Iterator[bytes], skip: int) -> Iterator[CodedRows]:
        for block in blocks:
            if skip:
                block = _BLANK_LINES.sub(b"", block)
            if not block:
                continue
            if self._is_quoted and b'"' in block:
                yield from self._csv_blocks(chain([block], blocks), skip)
                return
            try:
                columns = self._parse(block, skip)
            except pa.ArrowInvalid:  # a row is blank, ragged or not in UTF-8, or there is none
                yield from self._csv_blocks([block], skip)
            else:
                first = self._row + skip
                self._row = first + len(columns[0].codes)
                yield range(first, self._row), columns
            skip = 0

    def _parse(self, block: bytes, skip: int) -> list[CodedColumn]:
        names = [str(position) for position in self._positions]
        table = pa_csv.read_csv(
            pa.BufferReader(block),
            pa_csv.ReadOptions(
                use_threads=False,
                block_size=len(block) + 1,
                skip_rows=skip,
                column_names=[str(position) for position in range(self._widths[0])],
            ),
            pa_csv.ParseOptions(delimiter=self._delimiter, quote_char=False),
            pa_csv.ConvertOptions(
                include_columns=names,
                # Distinct texts and their codes: several times faster than an object per value.
                column_types=dict.fromkeys(names, pa.dictionary(pa.int32(), pa.string())),
            ),
        )
        return [coded(table[name].combine_chunks()) for name in names]

    def _csv_blocks(self, blocks: Iterable[bytes], skip: int) -> Iterator[CodedRows]:
        rows = self._csv_rows(blocks)
        next(islice(rows, skip, skip), None)
        # One flat sequence: lists of rows that wait would cost the garbage collector's time.
        first, positions, width = self._row, self._positions, len(self._positions)
        values = (row[position] for row in rows for position in positions)
        while part := [*islice(values, self._block_rows * width)]:
            numbers, first = range(first, self._row), self._row
            yield numbers, [coded_texts(part[column::width], numbers) for column in range(width)]

    def _csv_rows(self, blocks: Iterable[bytes]) -> Iterator[list[str]]:
        """Yield the values of rows, of which one cannot be parsed by Arrow."""
        reader = self._reader(blocks, strict=True)
        blank, start = 0, self._row
        try:
            for row in reader:
                if len(row) != self._widths[0]:
                    if row != [""] and not self._delimiter.join(row).strip(" \t"):
                        blank += 1
                        continue
                    raise self._ragged(row)
                self._row += 1
                yield row
        except csv.Error as error:
            raise self._malformed(str(error)) from None
        self.line_breaks += reader.line_num - blank - (self._row - start)

    def _reader(self, blocks: Iterable[bytes], strict: bool) -> Any:
        """Return the ``csv`` module's reader of blocks of whole lines."""
        csv.field_size_limit(_MAX_ROW)
        texts = (block.decode(errors=_ESCAPE) for block in blocks)
        lines = chain.from_iterable(io.StringIO(text, newline="") for text in texts)
        quoting = _QUOTING[self._is_quoted]
        return csv.reader(lines, delimiter=self._delimiter, quoting=quoting, strict=strict)

    def _normalised(self, lines: bytes) -> bytes:
        """Return whole lines with separators of one character and without comments."""
        if self._layout.comment is not None:
            lines = re.sub(rb"(?m)^%s.*\n?" % re.escape(self._layout.comment.encode()), b"", lines)
        if self._separator == WHITESPACE:
            lines = re.sub(rb"[ \t]+", _UNIT_SEPARATOR, lines)
            return re.sub(rb"(?m)^\x1f|\x1f(?=\r?$)", b"", lines)
        if len(self._separator) > 1:
            return lines.replace(self._separator.encode(), _UNIT_SEPARATOR)
        return lines

    def _whole_lines(self) -> Iterator[bytes]:
        rest = b""
        for block in chain(self._blocks, [b"\n"]):
            text = rest + block
            # The last character may be the first one of "\r\n".
            end = text.rfind(b"\n") + 1 or text.rfind(b"\r", 0, -1) + 1
            lines, rest = text[:end], text[end:]
            if codecs.BOM_UTF8 in lines and (mark := _MARK_BEFORE_ROW.search(lines)):
                before = sum(1 for line in lines[: mark.start()].splitlines() if line.strip())
                raise _LineError(
                    before,
                    "begins with a byte-order mark, as where files were joined; pass the files one "
                    "by one, or remove the mark and the second header",
                )
            if lines:
                yield lines
            if len(rest) > _MAX_ROW:
                raise _LineError(
                    0,
                    f"has more than {_MAX_ROW:,} bytes; look for another end of line than '\\n' or "
                    "'\\r'",
                )

    def _malformed(self, error: str) -> FileError:
        problems = {
            "end of data": "a quote opens a value and is never closed",
            "expected after": "a quoted value has text after its closing quote",
            "field limit": f"a quote opens a value and is not closed within {_MAX_ROW:,} bytes, or "
            "the end of line is neither '\\n' nor '\\r'",
        }
        problem = next((text for part, text in problems.items() if part in error), error)
        fix = "if quotes are part of the values, prepare the data with --quoting none"
        return FileError(f"row {self._row}: {problem}; {fix}")

    def _ragged(self, row: list[str]) -> FileError:
        fix = "quote values that contain the separator"
        if not self._is_quoted:
            fix = "remove the separator from values, or quote them and drop --quoting none"
        if len(set(self._widths)) > 2:
            fix += "; if each row is a user and many items, prepare the data with --format lists"
        problem = f"{len(row)} columns where row 1 has {self._widths[0]}"
        return FileError(f"row {self._row}{shown(','.join(row))}: {problem}; {fix}")


def shown(row: str) -> str:
    """Return the text of a row, shortened, as it follows its number."""
    text = one_line(row)
    return f" ({text})" if text else ""


def coded(column: pa.DictionaryArray) -> CodedColumn:
    """Return a column of Arrow's."""
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return CodedColumn(codes, column.dictionary.to_numpy(zero_copy_only=False))


def coded_texts(texts: Sequence[str | None], rows: Sequence[int]) -> CodedColumn:
    """Return a column of some rows; texts are decoded with ``surrogateescape``, None if missing."""
    try:
        return coded(pa.array(texts, pa.string()).dictionary_encode())
    except UnicodeEncodeError:
        pairs = zip(rows, texts, strict=True)
        row = next(row for row, text in pairs if UNDECODED.search(text or ""))
        raise FileError(f"row {row}: {NOT_UTF8}") from None


def _utf8_blocks(
    content: io.BufferedReader, encoding: str | None, block_bytes: int
) -> Iterator[bytes]:
    """Yield a file in UTF-8, without a byte-order mark."""
    start = content.peek(4)
    marked = (name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark))
    name = next(marked, encoding or "utf-8")
    if name == "utf-8-sig":
        content.read(len(codecs.BOM_UTF8))
    blocks = iter(partial(content.read, block_bytes), b"")
    if codecs.lookup(name).name in ("utf-8", "utf-8-sig"):
        yield from blocks
        return
    row = 1
    try:
        for text in codecs.iterdecode(blocks, name):
            row += text.count("\n")
            yield text.encode()
    except UnicodeError as error:
        if "BOM" in str(error):
            raise FileError(
                f"begins without a byte-order mark, so it is not in {name}; convert the file, or "
                f"prepare the data with its --encoding, e.g. {name}-le or utf-8"
            ) from None
        if isinstance(error, UnicodeDecodeError):
            row += error.object[: error.start].count(b"\n")
        fix = "prepare the data with the right --encoding"
        raise FileError(f"row {row}: is not valid {name}; {fix}") from None
