"""Quotes in a text file, checked before Arrow reads it.

Arrow takes a quote at the start of a value for an opening one and reads on to the next quote, over
as many rows as it takes: where quotes are data, rows would be lost without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae.errors import UserError

_BLOCK_BYTES = 1 << 20
_MAX_ROW_BYTES = 1 << 21
"""Arrow reads no longer rows."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE, _LINE_FEED, _CARRIAGE_RETURN = b'"\n\r'


def check_quotes(path: Path, separator: str) -> int:
    """Makes sure that a quote is data inside an unquoted value or belongs to a quoted one.

    Args:
        path: of a text file whose values may be quoted, as RFC 4180 has it; compressed ones too.
        separator: of its columns.

    Returns:
        The number of line breaks inside quoted values.

    Raises:
        UserError: a quoted value has text after its closing quote, or no closing quote.
        OSError: the file cannot be read.
    """
    if not any(b'"' in block for block in _blocks(path)):
        return 0
    check = _Check(path, separator)
    problem = "is never closed"
    for block in _blocks(path):
        check.add(block)
        if check.row_bytes > _MAX_ROW_BYTES:
            problem = f"is not closed within {_MAX_ROW_BYTES:,} bytes"
            break
    check.end(problem)
    return check.line_breaks


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed."""
    with pa.input_stream(str(path), compression="detect") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


class _Check:
    """Follows the quotes of a text file block by block.

    Attributes:
        line_breaks: how many of them are inside quoted values.
    """

    def __init__(self, path: Path, separator: str) -> None:
        self.line_breaks = 0
        self._path = path
        self._ends_value = np.zeros(256, bool)
        self._ends_value[list(f"{separator}\r\n".encode())] = True
        # A line break, here one for the start of the file, and the row that begins after it.
        self._unfinished = b"\n"
        self._row = 1

    @property
    def row_bytes(self) -> int:
        """How long the row is so far that has not ended yet."""
        return len(self._unfinished)

    def end(self, problem: str) -> None:
        """Makes sure that no quoted value is open.

        Args:
            problem: what to say of the quote that opened one.

        Raises:
            UserError: one is.
        """
        self.add(b"\n")  # which ends the last row
        text = np.frombuffer(self._unfinished, np.uint8)
        first, inside, opener = self._follow(text)
        if len(first) and inside[-1]:
            raise self._malformed(text, opener[-1], f"a quote opens a value and {problem}")

    def add(self, block: bytes) -> None:
        """Follows the quotes of the next bytes.

        Raises:
            UserError: a quoted value has text after its closing quote.
        """
        if self._unfinished == b"\n":
            block = block.removeprefix(_BYTE_ORDER_MARK)
        whole = self._unfinished + block
        # What a quote at the end does depends on the byte after it.
        settled = whole.rstrip(b'"')
        text = np.frombuffer(settled, np.uint8)
        ends_row = _line_breaks(text)
        if b'"' in settled:
            end = self._leave_out_quoted(text, ends_row)
        else:
            end = max(settled.rfind(b"\n"), settled.rfind(b"\r"))
        self._row += _count_rows(ends_row[: end + 1])
        self._unfinished = whole[end:]

    def _leave_out_quoted(self, text: NDArray[np.uint8], ends_row: NDArray[np.bool_]) -> int:
        """Unmarks the line breaks inside quoted values; returns the place of the last other one."""
        first, inside, _ = self._follow(text)
        breaks = np.flatnonzero(ends_row)
        is_quoted = np.append(False, inside)[np.searchsorted(first, breaks)]
        quoted, end = breaks[is_quoted], int(breaks[~is_quoted][-1])
        ends_row[quoted] = False
        is_second = (text[quoted] == _LINE_FEED) & (text[quoted - 1] == _CARRIAGE_RETURN)
        self.line_breaks += int(np.count_nonzero(quoted[~is_second] < end))
        return end

    def _follow(
        self, text: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Follows the quotes from a line break on to a byte that is none.

        What matters of a run of them is where it stands and whether their number is odd. Outside of
        quoted values, one that begins a value opens it, and closes it again if the number is even;
        another one is data. Inside, two of them are one doubled quote, and an odd one closes.

        Returns:
            (runs,) the place of the first quote of each run, whether a value is open after it, and
            the place where the value opened.

        Raises:
            UserError: a quoted value has text after its closing quote.
        """
        quotes = np.flatnonzero(text == _QUOTE)
        first = quotes[np.diff(quotes, prepend=-2) > 1]
        last = quotes[np.diff(quotes, append=len(text) + 1) > 1]
        is_odd = (last - first) % 2 == 0
        begins_value = self._ends_value[text[first - 1]]
        # An odd run at the start of a value opens or closes; an odd one elsewhere leaves it closed.
        changes = np.cumsum(is_odd & begins_value)
        changes -= np.maximum.accumulate(np.where(is_odd & ~begins_value, changes, 0))
        inside = changes % 2 == 1
        was_inside = np.append(False, inside)[:-1]
        opener = np.maximum.accumulate(np.where(was_inside, 0, first))
        closes = np.where(was_inside, is_odd, begins_value & ~is_odd)
        wrong = closes & ~self._ends_value[text[last + 1]]
        if wrong.any():
            place = opener[np.argmax(wrong)]
            raise self._malformed(text, place, "a quoted value has text after its closing quote")
        return first, inside, opener

    def _malformed(self, text: NDArray[np.uint8], place: int, problem: str) -> UserError:
        """The error of the value that opens at this place of the text."""
        ends_row = _line_breaks(text[:place])
        self._leave_out_quoted(text[:place], ends_row)
        row = self._row + _count_rows(ends_row)
        return UserError(
            f"{self._path}: row {row}: {problem}; if quotes are part of the values, prepare the "
            "data with --quoting none."
        )


def _line_breaks(text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which bytes are a line feed or a carriage return."""
    found: NDArray[np.bool_] = text == _LINE_FEED
    found |= text == _CARRIAGE_RETURN
    return found


def _count_rows(ends_row: NDArray[np.bool_]) -> int:
    """Rows between the marked bytes; one without anything is none."""
    return int(np.count_nonzero(ends_row[1:] > ends_row[:-1]))
