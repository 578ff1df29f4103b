"""Quotes in a text file, checked on the way to Arrow.

Arrow takes a quote at the start of a value for an opening one and reads on to the next quote, over
as many rows as it takes: where quotes are data, rows would be lost without a word.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae.errors import UserError
from vae.load.columns import MINIMAL

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE, _LINE_FEED, _CARRIAGE_RETURN = b'"\n\r'


class CheckedFile:
    """The bytes of a file, decompressed, for Arrow to read; their quotes are checked meanwhile.

    Attributes:
        closed: whether it is, as Arrow asks of any file.
        line_breaks: how many of them are inside quoted values.
    """

    def __init__(self, path: Path, separator: str, quoting: str) -> None:
        self.closed = False
        self.line_breaks = 0
        self._path = path
        self._file = pa.input_stream(str(path), compression="detect")
        self._has_quoted_values = quoting == MINIMAL
        self._ends_value = np.zeros(256, bool)
        self._ends_value[list(f"{separator}\r\n".encode())] = True
        # A line break, here one for the start of the file, and the row that begins after it.
        self._unfinished = b"\n"
        self._row = 1

    def readable(self) -> bool:
        """Whether it is a file to read, as Arrow asks of any file."""
        return True

    def read(self, size: int) -> bytes:
        """The next bytes, none at the end of the file.

        Raises:
            UserError: a quoted value has text after its closing quote, or no closing quote.
            OSError: the file cannot be read.
        """
        block = bytes(self._file.read(size))
        if self._has_quoted_values:
            self._check(block or b"\n")  # which ends the last row
            if not block:
                self.check_no_quote_is_open()
        return block

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self.closed = True

    def check_no_quote_is_open(self, problem: str = "is never closed") -> None:
        """Makes sure that what has been read does not end inside a quoted value.

        Args:
            problem: what to say of the quote that opened the value.

        Raises:
            UserError: one is.
        """
        text = np.frombuffer(self._unfinished + b"\n", np.uint8)
        first, inside, opener = self._follow(text)
        if len(first) and inside[-1]:
            raise self._malformed(text, opener[-1], f"a quote opens a value and {problem}")

    def _check(self, block: bytes) -> None:
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
