"""Standard streams that survive a closed descriptor or pipe and a full disk, and progress bars."""

from __future__ import annotations

import errno
import io
import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from vae.utils.outputs import discard

if TYPE_CHECKING:
    from tqdm import tqdm


_COLUMNS = 100
_START_UP_LINE = "^WARNING: All log messages before absl::InitializeLog\\|^[IW]0000 "


def open_console() -> None:
    """Make the standard streams robust; call this before any file is opened.

    - A closed descriptor is opened on ``/dev/null``: otherwise the next file would get it, and
      the output of libraries would be written to that file.
    - A character that the encoding lacks is written as Python's escape sequence.
    - The program continues when a stream is closed by its reader: see ``_Console``. A closed
      terminal also sends SIGHUP, which stops a run unless ``nohup`` started it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest closed one is opened
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Leave out what TensorFlow says below an error, unless the user has set that it says more.

    While its libraries are loaded no level counts yet, so a process filters standard error: one
    that outlives an abort.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") < "2":
        yield
        return
    try:
        stderr = os.dup(2)
        lines = subprocess.Popen(["grep", "-v", _START_UP_LINE], stdin=subprocess.PIPE, stdout=2)
    except OSError:  # no standard error, no such program or no process left
        yield
        return
    assert lines.stdin is not None
    os.dup2(lines.stdin.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        lines.communicate()


def progress(
    description: str, total: int | None, unit: str = "users", done: int = 0, is_shown: bool = True
) -> tqdm[None]:
    """Return a progress bar on standard error, which leaves no line behind.

    Where standard error is no terminal, a sentence on standard output says what begins. The total
    is None if it is not known; units that are done at the start count.
    """
    from tqdm import tqdm  # not above: --help does without

    if is_shown and not sys.stderr.isatty():
        print(f"{description} ...", flush=True)
    return tqdm(
        desc=description,
        total=total,
        initial=done,
        unit=f" {unit}",
        unit_scale=total is None or total > 1000,
        dynamic_ncols=True,
        leave=False,
        disable=None if is_shown else True,
    )


def trimmed(line: str) -> str:
    """Return a line that fits into 100 columns, of which some characters take two."""
    from tqdm.utils import disp_len, disp_trim

    return line if disp_len(line) <= _COLUMNS else f"{disp_trim(line, _COLUMNS - 3)}..."


def wrapped(sentence: str) -> str:
    """Return a sentence in lines of 100 columns; no word, such as a path, is cut."""
    return textwrap.fill(
        sentence,
        _COLUMNS,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


Progress = Callable[..., "tqdm[None]"]
"""``progress`` or ``RunLog.progress``."""


class _Console(io.FileIO):
    """A stream that is redirected to ``/dev/null`` once it cannot be written.

    Hours of training must not be lost with a pipe, a terminal or a full disk. A failure of standard
    output is reported on standard error, unless it is a pipe whose reader ended (``| head``).
    """

    def write(self, data: Any) -> int:
        """Write bytes; return the number of bytes that were written or discarded."""
        try:
            while (written := super().write(data)) is None:  # a full non-blocking pipe
                select.select([], [self], [])
        except OSError as error:
            discard(self.fileno())
            if self.fileno() == 1 and error.errno != errno.EPIPE:
                print(
                    f"Standard output cannot be written ({error.strerror}); the program continues "
                    "and the rest of it is lost.",
                    file=sys.stderr,
                )
            return len(data)
        return written


def _stream(descriptor: int, before: TextIO | None) -> TextIO:
    """Return a text stream in the encoding of the previous one; None: that was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Console(descriptor, "w", closefd=False)),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
