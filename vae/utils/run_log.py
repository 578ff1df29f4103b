"""The run's log, on rank 0 only: everything in a JSON file, what people watch on standard output.

Both are dllogger's, each with a logger of its own: a console line in the logger of the file
would be a second record of the same epoch there. The file is opened for appending, and each line is
one write: runs can share a log, one after another or at the same time. Callbacks receive the logged
values of each epoch.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from vae.cli import as_json
from vae.config import Config
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.utils.console import progress
from vae.utils.console_lines import ConsoleLines
from vae.utils.distributed import Workers
from vae.utils.dllogger_fallback import Step
from vae.utils.outputs import discard, report_write_errors, write_error

try:
    import dllogger
except ImportError:
    from vae.utils import dllogger_fallback as dllogger

_UNITS = {
    "_time": "s",
    "_latency": "s",
    "_throughput": "users/s",
    "_users": "users",
    "_items": "items",
    "loss": "nats/user",
    "likelihood": "nats/user",
    "divergence": "nats/user",
    "penalty": "nats/user",
}
"""Units by how the names of the values end."""


def unit_of(name: str) -> str | None:
    """Return the unit of a logged value; metrics and their standard errors have none."""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)


class Callback(Protocol):
    """Receiver of the logged values of each epoch."""

    def add(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Receive values of an epoch: first those of training, then those of validation."""


class RunLog:
    """The log of a run; values that are not finite are omitted, since JSON has no NaN.

    Args:
        path: file to append JSON lines to.
        enabled: whether to log; False on all ranks but 0.
        callbacks: receivers of the values of each epoch.

    Raises:
        UserError: the file cannot be opened.
    """

    def __init__(
        self, path: Path, enabled: bool = True, callbacks: Sequence[Callback] = ()
    ) -> None:
        self._path = path
        self._logger: Any = None
        self._lines = ConsoleLines()
        self._described: set[str] = set()
        self._callbacks = callbacks
        if not enabled:
            return
        self._descriptor = _open_to_append(path)
        self._stream = dllogger.JSONStreamBackend(
            dllogger.Verbosity.VERBOSE, self._descriptor, append=True
        )
        console = dllogger.StdOutBackend(dllogger.Verbosity.DEFAULT, **self._lines.formats())
        self._logger = dllogger.Logger([self._stream])
        self._console = dllogger.Logger([console])

    def close(self) -> None:
        """Close the file; from now on nothing is logged."""
        if self._logger is not None:
            for logger in (self._logger, self._console):
                logger.backends.clear()  # dllogger flushes them at the end of the process
            self._stream.file.close()
            self._logger = None

    def begin(
        self, workers: Workers, config: Config, dataset: Dataset, descriptions: Iterable[str]
    ) -> None:
        """Say what the run works on, and log its parameters.

        Args:
            workers: workers of the run.
            config: flags, logged as parameters.
            dataset: prepared data set.
            descriptions: further sentences, such as on the inputs.

        Raises:
            UserError: the file cannot be written.
        """
        users, items = dataset.train.shape
        self._lines.epochs = config.training.epochs
        self.say(
            f"Data set {dataset.name}: {users:,} training users, {items:,} items; "
            f"{workers.description}."
        )
        self.log("PARAMETER", as_json(config))
        for sentence in descriptions:
            self.say(sentence)

    def log(self, step: Step, data: Mapping[str, Any], note: str = "") -> None:
        """Log the values of one step, if there are any, each with a unit before its first line.

        Args:
            step: ``"PARAMETER"``, ``(epoch,)``, or ``()`` for the run's summary.
            data: values by name; NumPy scalars are converted to Python numbers.
            note: what the console shows behind the values.

        Raises:
            UserError: the file cannot be written.
        """
        plain = {name: _plain(value) for name, value in data.items() if _is_defined(value)}
        if self._logger is None or not plain:
            return
        for name in plain if step != "PARAMETER" else ():
            if name not in self._described and (unit := unit_of(name)):
                with self._line() as logger:
                    logger.metadata(name, {"unit": unit})
                self._described.add(name)
        with self._line() as logger:
            logger.log(step, plain, dllogger.Verbosity.VERBOSE)
        shown_step, shown = self._lines.select(step, plain, note)
        if shown:
            with tqdm.external_write_mode():
                self._console.log(shown_step, shown, dllogger.Verbosity.DEFAULT)
        if isinstance(step, tuple) and step:
            for callback in self._callbacks:
                callback.add(step[0], plain)

    @contextmanager
    def _line(self) -> Iterator[Any]:
        """Yield the logger for one line and flush it, so that the line is a single write."""
        try:
            with report_write_errors(f"--log_path {self._path}"):
                yield self._logger
                self._logger.flush()
        except UserError:
            # dllogger flushes again at the end of the process; a failure would print a stack trace.
            discard(self._descriptor)
            raise

    def say(self, sentence: str) -> None:
        """Print a sentence on standard output; it is not written to the file."""
        if self._logger is not None:
            with tqdm.external_write_mode():
                print(sentence, flush=True)

    def progress(
        self, description: str, total: int, unit: str = "users", done: int = 0
    ) -> tqdm[None]:
        """Show the progress of what may take long, see ``console.progress``."""
        return progress(description, total, unit, done, is_shown=self._logger is not None)


def _open_to_append(path: Path) -> int:
    """Return a descriptor that appends to a log; an incomplete last line is ended first.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_NONBLOCK: opening a FIFO without a reader fails instead of waiting for one.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
        os.set_blocking(descriptor, True)
        if _is_cut(path):
            os.write(descriptor, b"\n")
    except OSError as error:
        unread = "a FIFO or a socket that no program reads"
        reason = unread if error.errno == errno.ENXIO else error
        raise write_error(
            f"--log_path {path}", reason, "; name another file", exit_code=2
        ) from None
    return descriptor


def _is_cut(path: Path) -> bool:
    """Return whether a file ends within a line, as after a kill or on a full disk."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _is_defined(value: Any) -> bool:
    return not (hasattr(value, "__float__") and not math.isfinite(value))


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number and a path to a string."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value
