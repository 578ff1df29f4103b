"""The run's log: dllogger lines on standard output and in a JSON file, on rank 0 only.

The file is opened for appending, and each line is one write: runs can share a log, one after
another or at the same time. Callbacks receive the logged values of each epoch.
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
from vae.config import COMPARISONS, Config
from vae.errors import UserError
from vae.metrics.comparison import EXPOSURE_METRICS, QUARTILE_METRICS
from vae.metrics.ranking import METRICS
from vae.utils.atomic import discard, unwritable, written
from vae.utils.distributed import Workers
from vae.utils.dllogger_fallback import Step

try:
    import dllogger
except ImportError:
    from vae.utils import dllogger_fallback as dllogger

UNITS: dict[str, str | None] = {
    "train_epoch_time": "s",
    "train_throughput": "users/s",
    "loss": "nats/user",
    "neg_log_likelihood": "nats/user",
    "kl_divergence": "nats/user",
    "l2_penalty": "nats/user",
    "kl_weight": None,
    "learning_rate": None,
    "loss_scale": None,
    "valid_time": "s",
    "valid_users": "users",
    "mean_training_throughput": "users/s",
    "mean_inference_throughput": "users/s",
    "test_users": "users",
    "test_time": "s",
    "warm_start_items": "items",
    "warm_start_new_items": "items",
    "warm_start_gone_items": "items",
    "ease_lambda": None,
    "blend_ease_lambda": None,
    "blend_model_weight": None,
    "recommend_users": "users",
    "recommend_popular_users": "users",
    "recommend_throughput": "users/s",
    "recommend_empty_users": "users",
} | {
    f"{prefix}{metric}{suffix}": None
    for prefix in (
        *("", "final_", "best_", "test_"),
        *(f"{before}{name}_" for name in COMPARISONS for before in ("", "test_minus_")),
    )
    for metric in (*METRICS, *EXPOSURE_METRICS, *QUARTILE_METRICS)
    for suffix in ("", "_se")
}
"""Unit of each logged value; metrics and their standard errors have none."""


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
        self._callbacks = callbacks
        if not enabled:
            return
        self._descriptor = _open_to_append(path)
        self._stream = dllogger.JSONStreamBackend(
            dllogger.Verbosity.VERBOSE, self._descriptor, append=True
        )
        console = dllogger.StdOutBackend(dllogger.Verbosity.VERBOSE)
        self._logger = dllogger.Logger([self._stream, console])

    def close(self) -> None:
        """Close the file; from now on nothing is logged."""
        if self._logger is not None:
            self._logger.backends.clear()  # dllogger flushes them at the end of the process
            self._stream.file.close()
            self._logger = None

    def begin(self, workers: Workers, config: Config, descriptions: Iterable[str]) -> None:
        """Log the number of workers, the parameters and the units.

        Args:
            workers: workers of the run.
            config: flags, logged as parameters.
            descriptions: further sentences, such as on the inputs.

        Raises:
            UserError: the file cannot be written.
        """
        self.say(f"Workers: {workers.description}.")
        self.log("PARAMETER", as_json(config))
        self.units(UNITS)
        for sentence in descriptions:
            self.say(sentence)

    def units(self, units: Mapping[str, str | None]) -> None:
        """Log the unit of each value; the console shows five digits, the file all.

        Raises:
            UserError: the file cannot be written.
        """
        if self._logger is not None:
            for metric, unit in units.items():
                described = {"unit": unit} if unit else {}
                with self._line() as logger:
                    logger.metadata(metric, described | {"format": ":.5g"})

    def log(self, step: Step, data: Mapping[str, Any]) -> None:
        """Log the values of one step, if there are any.

        Args:
            step: ``"PARAMETER"``, ``(epoch,)``, or ``()`` for the run's summary.
            data: values by name; NumPy scalars are converted to Python numbers.

        Raises:
            UserError: the file cannot be written.
        """
        plain = {name: _plain(value) for name, value in data.items() if _is_defined(value)}
        if self._logger is not None and plain:
            with self._line() as logger, tqdm.external_write_mode():
                logger.log(step, plain)
            if isinstance(step, tuple) and step:
                for callback in self._callbacks:
                    callback.add(step[0], plain)

    @contextmanager
    def _line(self) -> Iterator[Any]:
        """Yield the logger for one line and flush it, so that the line is a single write."""
        try:
            with written("--log_path", self._path):
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

    def progress(self, steps: int, done: int) -> tqdm[None]:
        """Return a progress bar of training, shown if standard error is a terminal.

        Args:
            steps: total optimizer steps.
            done: steps of earlier runs.
        """
        return tqdm(
            desc="Training",
            total=steps,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            leave=False,
            disable=None if self._logger is not None else True,
        )


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
        raise unwritable(f"--log_path {path}", reason, "; name another file", exit_code=2) from None
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
