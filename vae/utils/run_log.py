"""The run's log, on rank 0 only: everything in a JSON file, what people watch on standard output.

The file is opened for appending, and each line is one write: runs can share a log, one after
another or at the same time. Callbacks receive the logged values of each epoch.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vae.errors import UserError
from vae.utils.console import progress
from vae.utils.dllogger_fallback import Step
from vae.utils.outputs import check_creatable, discard, report_write_errors, write_error

try:
    import dllogger
except ImportError:
    from vae.utils import dllogger_fallback as dllogger

Callback = Callable[[int, Mapping[str, float]], object]
"""Takes an epoch and its metrics: first those of training, then those of validation."""


class RunLog:
    """The log of a run; values that are not finite are omitted, since JSON has no NaN.

    Args:
        path: file to append JSON lines to; None: log and print nothing, as on all ranks but 0.
        unit_of: returns the unit of a value, by its name; None if it has none.
        line_of: returns what the console shows of a step, its values and a note; empty for nothing.
        callbacks: receivers of the metrics of each epoch.

    Attributes:
        progress: ``console.progress``, which shows something on rank 0 alone.

    Raises:
        UserError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path | None,
        unit_of: Callable[[str], str | None] = lambda name: None,
        line_of: Callable[[Step, Mapping[str, Any], str], str] = lambda step, values, note: "",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._path = path
        self._unit_of = unit_of
        self._line_of = line_of
        self._callbacks = callbacks
        self._described: set[str] = set()
        self.progress = partial(progress, is_shown=path is not None)
        if path is not None:
            self._descriptor = _open_to_append(path)
            _end_last_line(path, self._descriptor)
            self._stream = dllogger.JSONStreamBackend(
                dllogger.Verbosity.VERBOSE, self._descriptor, append=True
            )
            self._logger = dllogger.Logger([self._stream])

    def close(self) -> None:
        """Close the file; from now on nothing is logged."""
        if self._path is not None:
            self._logger.backends.clear()  # dllogger flushes them at the end of the process
            self._stream.file.close()
            self._path = None

    def log(self, step: Step, data: Mapping[str, Any], note: str = "") -> None:
        """Log the values of one step, if there are any, each with a unit before its first line.

        NumPy scalars become Python numbers. The console shows the note behind the values.

        Raises:
            UserError: the file cannot be written.
        """
        plain = {name: v.item() if hasattr(v, "item") else v for name, v in data.items()}
        plain = {n: v for n, v in plain.items() if not isinstance(v, float) or math.isfinite(v)}
        if self._path is None or not plain:
            return
        for name in plain if step != "PARAMETER" else ():
            if name not in self._described and (unit := self._unit_of(name)):
                with self._one_write():
                    self._logger.metadata(name, {"unit": unit})
                self._described.add(name)
        with self._one_write():
            self._logger.log(step, plain, dllogger.Verbosity.VERBOSE)
        if line := self._line_of(step, plain, note):
            self.say(line)
        if isinstance(step, tuple) and step:
            for callback in self._callbacks:
                callback(step[0], plain)

    @contextmanager
    def _one_write(self) -> Iterator[None]:
        """Flush the line that the block logs."""
        try:
            with report_write_errors(f"--log_path {self._path}"):
                yield
                self._logger.flush()
        except UserError:
            # dllogger flushes again at the end of the process; a failure would print a stack trace.
            discard(self._descriptor)
            raise

    def say(self, sentence: str) -> None:
        """Print a sentence on standard output; it is not written to the file."""
        if self._path is not None:
            with tqdm.external_write_mode():
                print(sentence, flush=True)


def check_log(path: Path) -> None:
    """Check that a log can be opened; create and write nothing."""
    if os.path.lexists(path):
        os.close(_open_to_append(path))
    else:
        check_creatable(path, "--log_path")


def _end_last_line(path: Path, descriptor: int) -> None:
    with report_write_errors(f"--log_path {path}", "; name another file", exit_code=2):
        if path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n"):
            os.write(descriptor, b"\n")


def _open_to_append(path: Path) -> int:
    """Return a descriptor that appends to a log."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_NONBLOCK: opening a FIFO without a reader fails instead of waiting for one.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
        os.set_blocking(descriptor, True)
    except OSError as error:
        unread = "a FIFO or a socket that no program reads"
        reason = unread if error.errno == errno.ENXIO else error
        raise write_error(
            f"--log_path {path}", reason, "; name another file", exit_code=2
        ) from None
    return descriptor
