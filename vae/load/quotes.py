"""Check of the quotes in a text file before Arrow reads it.

Arrow takes a quote at the start of a value as an opening one and reads on to the next quote, across
any number of rows: if quotes are data, rows would be lost silently.
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
    """Check that every quote is data inside an unquoted value or belongs to a quoted one.

    Args:
        path: text file, optionally compressed, whose values may be quoted as in RFC 4180.
        separator: column separator.

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
    """Yield the bytes of a file, decompressed."""
    with pa.input_stream(str(path), compression="detect") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


class _Check:
    """The state of the check between two blocks of a file.

    Attributes:
        line_breaks: number of line breaks inside quoted values.
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
        """Return the size so far of the row that has not ended yet."""
        return len(self._unfinished)

    def end(self, problem: str) -> None:
        """Check that no quoted value is open at the end of the file.

        Args:
            problem: rest of the message about the opening quote.

        Raises:
            UserError: a quoted value is open.
        """
        self.add(b"\n")  # which ends the last row
        text = np.frombuffer(self._unfinished, np.uint8)
        first, inside, opener = self._follow(text)
        if len(first) and inside[-1]:
            raise self._malformed(text, opener[-1], f"a quote opens a value and {problem}")

    def add(self, block: bytes) -> None:
        """Check the quotes of the next bytes.

        Raises:
            UserError: a quoted value has text after its closing quote.
        """
        if self._unfinished == b"\n":
            block = block.removeprefix(_BYTE_ORDER_MARK)
        whole = self._unfinished + block
        # The meaning of a quote at the end depends on the byte after it.
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
        """Unmark line breaks inside quoted values; return the position of the last other one."""
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
        """Follow the quotes of a text that begins with a line break and does not end with a quote.

        Only the position of a run of quotes and the parity of its length matter. Outside a quoted
        value, a run at the start of a value opens it, and closes it again if the length is even;
        any other run is data. Inside, two quotes are an escaped one, and an odd one closes.

        Returns:
            For each run: (runs,) position of its first quote, whether a value is open after it, and
            the position where that value opened.

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
            position = opener[np.argmax(wrong)]
            raise self._malformed(text, position, "a quoted value has text after its closing quote")
        return first, inside, opener

    def _malformed(self, text: NDArray[np.uint8], position: int, problem: str) -> UserError:
        """Return the error for the value that opens at this position of the text."""
        ends_row = _line_breaks(text[:position])
        self._leave_out_quoted(text[:position], ends_row)
        row = self._row + _count_rows(ends_row)
        return UserError(
            f"{self._path}: row {row}: {problem}; if quotes are part of the values, prepare the "
            "data with --quoting none."
        )


def _line_breaks(text: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which bytes are a line feed or a carriage return."""
    found: NDArray[np.bool_] = text == _LINE_FEED
    found |= text == _CARRIAGE_RETURN
    return found


def _count_rows(ends_row: NDArray[np.bool_]) -> int:
    """Return the number of rows between the marked bytes; empty rows do not count."""
    return int(np.count_nonzero(ends_row[1:] > ends_row[:-1]))
