"""Standard input, output and error, whatever the shell has connected to them."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from typing import Any, TextIO

from vae.utils.atomic import discard


def open_console() -> None:
    """Makes the standard streams usable, and keeps them so; call it before any file is opened.

    - A descriptor that is closed would be given to the next file that is opened, and what a library
      prints would land in that file. It becomes ``/dev/null``.
    - A character that an encoding lacks is written as Python's escape sequence for it.
    - A stream whose reader goes away does not end the program: see ``_Console``. A closed terminal
      also sends SIGHUP, which is ignored from here on, by child processes too.
    """
    for descriptor in range(3):
        _open_if_closed(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


class _Console(io.FileIO):
    """A descriptor of the console that is replaced by ``/dev/null`` once it cannot be written.

    What it shows of a run is in the log as well. So the loss of a console, be it a pipe, a terminal
    or a file on a full disk, is no reason to lose hours of training. A pipe whose reader has left
    (``| head``) misses nothing; of anything else that stops standard output, standard error tells.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: Any) -> int:
        """Writes bytes; returns how many of them are dealt with."""
        try:
            while (written := super().write(data)) is None:  # a full pipe that does not block
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


def _open_if_closed(descriptor: int) -> None:
    """Opens ``/dev/null`` on a closed descriptor; all lower ones have to be open."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _stream(descriptor: int, before: TextIO | None) -> TextIO:
    """A stream of text in the encoding of the one before, None where that was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Console(descriptor)),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
