"""Rows of text files (CSV, TSV and the like): encoding, separator, and checks of every row.

Arrow takes a quote at the start of a value as an opening one and reads on to the next quote, across
any number of rows: if quotes are data, rows would be lost without a word. So the rows are checked
here, as bytes and with NumPy, and Arrow parses only sound ones.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vae.errors import UserError, one_line
from vae.load.config import MINIMAL, WHITESPACE, Columns

_BLOCK_BYTES = 1 << 23
_MAX_ROW_BYTES = 1 << 21
_SAMPLE_ROWS = 20
_CANDIDATES = (",", "\t", ";", "|", "::", "<SEP>", WHITESPACE)
_UNIT_SEPARATOR = "\x1f"
"""Replaces separators of several characters; text does not contain it."""

ONE_ROW_EACH = "one row per interaction is needed, as pandas' DataFrame.explode makes of lists"
"""What to do about many items in one value."""

_AWK = "'{for (i = 2; i <= NF; i++) print $1, $i}' makes them of a user and items"

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MARK_BEFORE_ROW = re.compile(rb"(?:\A|[\r\n])(?=\xef\xbb\xbf)")
_QUOTE, _LINE_FEED, _CARRIAGE_RETURN = b'"\n\r'


Fits = Callable[[list[list[str]]], bool]
"""Takes first rows of a file, at least one, and returns whether they have the needed columns."""

Texts = tuple[NDArray[Any], NDArray[Any]]
"""A column: (rows,) codes, -1 for a missing value, and the (distinct,) strings or numbers."""


class Rows(NamedTuple):
    """Consecutive whole rows of a file.

    Attributes:
        first: number of the first row; empty lines and comments do not count.
        data: their text in UTF-8.
    """

    first: int
    data: bytes


class TextFile:
    """A text file whose first rows have been looked at.

    Args:
        content: the decompressed file.
        path: its path, for messages and the default separator.
        layout: format of the file.
        fits: decides which separator yields the columns that are needed.
        is_fixed: whether the separator of the layout, if it has one, is that of the file.

    Attributes:
        sample: values of the first rows; none if the file is empty.
        note: what was assumed about the separator, empty if nothing was.

    Raises:
        UserError: the file cannot be decoded.
    """

    def __init__(
        self, content: IO[bytes], path: Path, layout: Columns, fits: Fits, is_fixed: bool = True
    ) -> None:
        self._path = path
        self._blocks = _utf8_blocks(content, path, layout.encoding)
        self._first_block = re.sub(rb"\A(?:[ \t]*[\r\n]+)+", b"", next(self._blocks, b""))
        sample = _sample(self._first_block, layout.comment)
        self._separator, self.note = _choose_separator(sample, path, layout, fits, is_fixed)
        self._layout = layout
        self._quoted = layout.quoting == MINIMAL and len(self._separator) == 1
        self.sample = [*_split(sample, self._separator, self._quoted)]
        self._width = len(self.sample[0]) if self.sample else 0
        is_ragged = len({len(row) for row in self.sample}) > 2
        self._splitter = _Splitter(path, self._byte, self._quoted, self._width, is_ragged)

    @property
    def line_breaks(self) -> int:
        """Number of line breaks inside quoted values so far."""
        return self._splitter.line_breaks

    def rows(self, has_header: bool) -> Iterator[Rows]:
        """Yield the rows in blocks.

        Args:
            has_header: whether to skip the first row.

        Raises:
            UserError: a quoted value is malformed, or the encoding is another.
        """
        for block in self._normalised():
            yield from self._rows(self._splitter.add(block), has_header)
        yield from self._rows(self._splitter.end(), has_header)

    def parse(self, rows: Rows, positions: Sequence[int]) -> list[Texts]:
        """Return the values of some columns, as text.

        Args:
            rows: rows of this file.
            positions: positions of the columns.

        Raises:
            UserError: a row has another number of values than the first one, or a value is not
                valid UTF-8.
        """
        if not rows.data or rows.data.isspace():
            return [(np.empty(0, np.int32), np.empty(0, object)) for _ in positions]
        names = [str(position) for position in positions]
        try:
            table = self._parse(rows.data, names)
        except pa.ArrowInvalid as error:
            # White space alone is a row of one value to Arrow.
            sound = self._splitter.without_blank_rows(rows)
            if sound == rows.data:
                raise self._unparsable(rows, positions, error) from None
            return self.parse(Rows(rows.first, sound), positions)
        columns = [table[name].combine_chunks() for name in names]
        return [
            (column.indices.to_numpy(), column.dictionary.to_numpy(zero_copy_only=False))
            for column in columns
        ]

    def _rows(self, blocks: Iterator[Rows], has_header: bool) -> Iterator[Rows]:
        for rows in blocks:
            if has_header and rows.first == 1:
                rows = self._splitter.without_first(rows)
            if rows.data:
                yield rows

    def _parse(self, data: bytes, names: Sequence[str]) -> pa.Table:
        return pa_csv.read_csv(
            pa.BufferReader(data),
            pa_csv.ReadOptions(
                use_threads=False,
                block_size=len(data) + 1,
                column_names=[str(position) for position in range(self._width)],
            ),
            pa_csv.ParseOptions(
                delimiter=self._byte,
                quote_char='"' if self._quoted else False,
                double_quote=self._quoted,
                newlines_in_values=self._quoted,
            ),
            pa_csv.ConvertOptions(
                include_columns=names,
                # Distinct texts and their codes: several times faster than an object per value.
                column_types=dict.fromkeys(names, pa.dictionary(pa.int32(), pa.string())),
            ),
        )

    @property
    def _byte(self) -> str:
        """The separator between the values of the rows, one character."""
        return self._separator if len(self._separator) == 1 else _UNIT_SEPARATOR

    def _normalised(self) -> Iterator[bytes]:
        """Yield the blocks with separators of one character and without comments."""
        blocks = itertools.chain([self._first_block], self._blocks)
        comment = self._layout.comment
        if len(self._separator) == 1 and comment is None:
            yield from blocks
            return
        for lines in _whole_lines(blocks):
            if comment is not None:
                lines = re.sub(rb"(?m)^%s.*\n?" % re.escape(comment.encode()), b"", lines)
            if self._separator == WHITESPACE:
                lines = re.sub(rb"[ \t]+", _UNIT_SEPARATOR.encode(), lines)
                lines = re.sub(rb"(?m)^\x1f|\x1f(?=\r?$)", b"", lines)
            elif len(self._separator) > 1:
                lines = lines.replace(self._separator.encode(), _UNIT_SEPARATOR.encode())
            yield lines

    def _unparsable(self, rows: Rows, positions: Sequence[int], error: Exception) -> UserError:
        """Return the error for rows of which Arrow cannot parse some."""
        text = rows.data.decode(errors="surrogateescape")
        for number, row in enumerate(_split(text, self._byte, self._quoted), rows.first):
            if not all(is_encodable(row[position]) for position in positions):
                return not_utf8(self._path, f"row {number}")
        return UserError(
            f"{self._path}: row {rows.first} or a later one cannot be parsed ({one_line(error)})."
        )


def not_utf8(path: Path, where: str) -> UserError:
    """Return the error for text in another encoding."""
    return UserError(
        f"{path}: {where}: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1."
    )


class _Splitter:
    """Splits blocks of bytes into rows, and checks the quotes as in RFC 4180.

    Args:
        path: the file.
        separator: between values, one character.
        quoted: whether values may be quoted.
        width: number of values of the first row.
        has_any_width: whether the first rows differ in that, as where a row lists many items.

    Attributes:
        line_breaks: number of line breaks inside quoted values so far.
    """

    def __init__(
        self, path: Path, separator: str, quoted: bool, width: int, has_any_width: bool
    ) -> None:
        self.line_breaks = 0
        self._path = path
        self._separator = ord(separator)
        self._quoted = quoted
        self._width = width
        self._has_any_width = has_any_width
        self._row = 1
        self._rest = b""
        self._ends_value = np.zeros(256, bool)
        self._ends_value[list(f"{separator}\r\n".encode())] = True

    def add(self, block: bytes) -> Iterator[Rows]:
        """Yield the rows that end in the next bytes.

        Raises:
            UserError: a quoted value is malformed, or a row too long.
        """
        whole = self._rest + block
        # What a quote or a carriage return at the end means depends on the next byte.
        yield from self._split(whole, whole.rstrip(b'"\r'))
        if len(self._rest) > _MAX_ROW_BYTES:
            self._check_quotes_are_closed(f"is not closed within {_MAX_ROW_BYTES:,} bytes")
            raise UserError(
                f"{self._path}: row {self._row}: has more than {_MAX_ROW_BYTES:,} bytes; "
                "look for another end of line than '\\n' or '\\r'."
            )

    def end(self) -> Iterator[Rows]:
        """Yield the rows that the end of the file ends.

        Raises:
            UserError: a quoted value is malformed.
        """
        self._check_quotes_are_closed("is never closed")
        whole = self._rest + b"\n"
        yield from self._split(whole, whole)

    def without_first(self, rows: Rows) -> Rows:
        """Return the rows after the first one."""
        marks, ends = self._marks(rows.data)
        return Rows(rows.first + 1, rows.data[int(marks[ends[0]]) + 1 :] if len(ends) > 1 else b"")

    def without_blank_rows(self, rows: Rows) -> bytes:
        """Return rows without those of white space alone, the only ones of another width.

        Raises:
            UserError: another row has a different number of values than the first row.
        """
        marks, ends = self._marks(rows.data)
        widths = np.diff(ends, prepend=-1)
        stops = marks[ends]
        starts = np.append(0, stops[:-1] + 1)
        kept: list[bytes] = []
        previous = 0
        for index in np.flatnonzero(widths != self._width):
            if rows.data[starts[index] : stops[index]].strip():
                raise self._ragged(rows.first + int(index) - len(kept), int(widths[index]))
            kept.append(rows.data[previous : starts[index]])
            previous = int(stops[index]) + 1
        return b"".join([*kept, rows.data[previous:]])

    def _split(self, whole: bytes, settled: bytes) -> Iterator[Rows]:
        """Yield the whole rows of a text; keep the rest.

        Args:
            whole: text that begins with a row.
            settled: its part in which the meaning of each character is known.

        Raises:
            UserError: a quoted value is malformed, or there is a NUL character or a row that
                begins with a byte-order mark.
        """
        self._check_characters(settled)
        has_quotes = self._quoted and b'"' in settled
        ends_line = np.frombuffer(settled, np.uint8) == _LINE_FEED
        # Not b"\n\n" in settled, which takes several times as long.
        has_blank_lines = settled.startswith(b"\n") or (ends_line[1:] & ends_line[:-1]).any()
        if has_quotes or has_blank_lines or b"\r" in settled:
            marks, ends = self._marks(settled)
            end, size = int(marks[ends[-1]]) + 1 if len(ends) else 0, len(ends)
        else:
            end = settled.rfind(b"\n") + 1
            size = int(np.count_nonzero(ends_line))
        self._rest = whole[end:]
        if size:
            if has_quotes:
                self.line_breaks += self._quoted_line_breaks(whole[:end])
            yield Rows(self._row, whole[:end])
            self._row += size

    def _check_characters(self, text: bytes) -> None:
        if b"\0" in text:
            raise UserError(
                f"{self._path}: row {self._row_of(text, text.index(0))}: contains a NUL character; "
                "prepare the data with --encoding, e.g. utf-16-le, or remove the character."
            )
        if codecs.BOM_UTF8 in text and (mark := _MARK_BEFORE_ROW.search(text)):
            raise UserError(
                f"{self._path}: row {self._row_of(text, mark.end())}: begins with a byte-order "
                "mark, as where files were joined; pass the files one by one, or remove the mark "
                "and the second header."
            )

    def _row_of(self, text: bytes, position: int) -> int:
        """Return the number of the row at a position of a text that begins with a row."""
        return self._row + len(self._marks(text[:position].rstrip(b'"'))[1])

    def _marks(self, text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the ends of values and rows in a text that begins with a row.

        Args:
            text: does not end within a run of quotes.

        Returns:
            Positions in the text of the characters that end a value, and the indices among these
            of those that end a row. Blank lines are left out.
        """
        codes = np.frombuffer(text, np.uint8)
        is_mark = codes == self._separator
        is_mark |= codes == _LINE_FEED
        is_mark |= codes == _CARRIAGE_RETURN
        marks = np.flatnonzero(is_mark)
        if self._quoted and b'"' in text:
            marks = marks[~self._is_quoted(text, marks)]
        is_end = codes[marks] != self._separator
        # The end of a blank line, and the line feed of "\r\n", end no row.
        previous = np.append(-1, marks[:-1])
        ends_nothing = is_end & (marks == previous + 1) & np.append(True, is_end[:-1])
        marks, is_end = marks[~ends_nothing], is_end[~ends_nothing]
        return marks, np.flatnonzero(is_end)

    def _is_quoted(self, text: bytes, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of these characters of a text are inside quoted values."""
        first, is_open, _ = self._follow(text)
        before = np.searchsorted(first, positions)
        is_quoted: NDArray[np.bool_] = np.append(False, is_open)[before]
        return is_quoted

    def _quoted_line_breaks(self, text: bytes) -> int:
        line_feeds = np.flatnonzero(np.frombuffer(text, np.uint8) == _LINE_FEED)
        return int(np.count_nonzero(self._is_quoted(text, line_feeds)))

    def _follow(
        self, text: bytes
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Follow the quotes of a text that begins with a row and does not end with a quote.

        Only the position of a run of quotes and the parity of its length matter. Outside a quoted
        value, a run at the start of a value opens it, and closes it again if the length is even;
        any other run is data. Inside, two quotes are an escaped one, and an odd one closes.

        Returns:
            For each run: (runs,) position of its first quote, whether a value is open after it, and
            the position where that value opened.

        Raises:
            UserError: a quoted value has text after its closing quote.
        """
        codes = np.frombuffer(text, np.uint8)
        quotes = np.flatnonzero(codes == _QUOTE)
        first = quotes[np.diff(quotes, prepend=-2) > 1]
        last = quotes[np.diff(quotes, append=len(text) + 1) > 1]
        is_odd = (last - first) % 2 == 0
        begins_value = self._ends_value[codes[first - 1]] | (first == 0)
        # An odd run at the start of a value opens or closes; an odd one elsewhere leaves it closed.
        changes = np.cumsum(is_odd & begins_value)
        changes -= np.maximum.accumulate(np.where(is_odd & ~begins_value, changes, 0))
        is_open = changes % 2 == 1
        was_open = np.append(False, is_open)[:-1]
        opener = np.maximum.accumulate(np.where(was_open, 0, first))
        closes = np.where(was_open, is_odd, begins_value & ~is_odd)
        wrong = closes & ~self._ends_value[codes[np.minimum(last + 1, len(codes) - 1)]]
        if wrong.any():
            position = int(opener[np.argmax(wrong)])
            raise self._malformed(text, position, "a quoted value has text after its closing quote")
        return first, is_open, opener

    def _check_quotes_are_closed(self, problem: str) -> None:
        if not (self._quoted and b'"' in self._rest):
            return
        text = self._rest + b"\n"
        _, is_open, opener = self._follow(text)
        if is_open[-1]:
            raise self._malformed(text, int(opener[-1]), f"a quote opens a value and {problem}")

    def _malformed(self, text: bytes, position: int, problem: str) -> UserError:
        """Return the error for the value that opens at this position of the text."""
        row = self._row + len(self._marks(text[:position])[1])
        return UserError(
            f"{self._path}: row {row}: {problem}; if quotes are part of the values, prepare the "
            "data with --quoting none."
        )

    def _ragged(self, row: int, width: int) -> UserError:
        fix = "quote values that contain the separator"
        if not self._quoted:
            fix = "remove the separator from values, or quote them and drop --quoting none"
        if self._has_any_width:
            option = "" if chr(self._separator).isspace() else f" -F'{chr(self._separator)}'"
            fix = f"{fix}; if a row lists many items, " if option else ""
            fix += f"one row per interaction is needed: awk{option} {_AWK}"
        return UserError(
            f"{self._path}: row {row}: {width} columns where row 1 has {self._width}; {fix}."
        )


def _utf8_blocks(content: IO[bytes], path: Path, encoding: str | None) -> Iterator[bytes]:
    """Yield a file in UTF-8, without a byte-order mark.

    Raises:
        UserError: the file is in another encoding than the one that is named.
    """
    block = content.read(_BLOCK_BYTES)
    found = next((name for mark, name in _BYTE_ORDER_MARKS.items() if block.startswith(mark)), None)
    name = found or encoding or "utf-8"
    if name == "utf-8-sig":
        block = block.removeprefix(codecs.BOM_UTF8)
    if codecs.lookup(name).name in ("utf-8", "utf-8-sig"):
        while block:
            yield block
            block = content.read(_BLOCK_BYTES)
        return
    decoder = codecs.getincrementaldecoder(name)()
    row, is_last = 1, False
    while not is_last:
        is_last = not block
        _, state = decoder.getstate()
        try:
            text = decoder.decode(block, is_last).encode()
        except UnicodeError as error:
            if "BOM" in str(error):
                raise UserError(
                    f"{path}: begins without a byte-order mark, so it is not in {name}; convert "
                    f"the file, or prepare the data with its --encoding, e.g. {name}-le or utf-8."
                ) from None
            if isinstance(error, UnicodeDecodeError):
                decoder.setstate((b"", state))
                row += decoder.decode(error.object[: error.start]).count("\n")
            raise UserError(
                f"{path}: row {row}: is not valid {name}; prepare the data with the right "
                "--encoding."
            ) from None
        row += text.count(b"\n")
        yield text
        block = content.read(_BLOCK_BYTES)


def _choose_separator(
    sample: str, path: Path, layout: Columns, fits: Fits, is_fixed: bool
) -> tuple[str, str]:
    """Return the separator and, if it was guessed, a sentence on it.

    Without ``--sep`` it is that of the file name's extension, unless only another one splits the
    first rows into the columns that are needed.
    """
    given = layout.separator
    if given is not None and is_fixed:
        return given, ""
    default = "\t" if ".tsv" in [suffix.lower() for suffix in path.suffixes] else ","

    def splits(separator: str) -> bool:
        quoted = layout.quoting == MINIMAL and len(separator) == 1
        rows = list(_split(sample, separator, quoted))
        return bool(rows) and fits(rows)

    expected = given or default
    if splits(expected):
        return expected, ""
    # Items of two words each are no two columns in a file beside ratings that have tabs.
    others = [other for other in _CANDIDATES if given is None or other != WHITESPACE]
    found = [default] if splits(default) else [*filter(splits, others)]
    if WHITESPACE in found and len(found) > 1:
        found.remove(WHITESPACE)  # which tabs are as well
    if len(found) != 1:
        return expected, ""
    shown = "white space" if found[0] == WHITESPACE else repr(found[0])
    return found[0], f"assuming {shown} between columns"


def _sample(block: bytes, comment: str | None) -> str:
    """Return the first rows of a file that are neither blank nor comments."""
    lines = _lines(block[:_MAX_ROW_BYTES].decode(errors="surrogateescape"))
    rows = (line for line in lines if line.strip() and not (comment and line.startswith(comment)))
    return "".join(row for row, _ in zip(rows, range(_SAMPLE_ROWS), strict=False))


def _split(text: str, separator: str, quoted: bool) -> Iterator[list[str]]:
    """Yield the values of each row that is not blank."""
    if separator == WHITESPACE:
        yield from (line.split() for line in _lines(text) if line.strip())
    elif len(separator) > 1:
        yield from (line.rstrip("\n").split(separator) for line in _lines(text) if line.strip())
    else:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        lines = io.StringIO(text, newline="")
        try:
            yield from filter(None, csv.reader(lines, delimiter=separator, quoting=quoting))
        except csv.Error:  # a value exceeds the csv module's limit: this is not a ratings file
            return


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, which end with a line feed."""
    return iter(io.StringIO(text, newline=None))


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks that end with a line, except the last one."""
    rest = b""
    for block in blocks:
        whole = rest + block
        end = max(whole.rfind(b"\n"), whole.rfind(b"\r")) + 1
        yield whole[:end]
        rest = whole[end:]
    yield rest


def is_encodable(text: str) -> bool:
    """Return whether a text decoded with ``surrogateescape`` was valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
