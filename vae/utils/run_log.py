"""The run's log: dllogger lines on standard output and in a JSON file, from rank 0 alone.

The file is only ever appended to, and each line is one write: so runs that share a log, one after
another or at the same time, keep each other's lines whole.

All figures of a run pass here, so this is also where others follow them, and where the terminal is
shared out between lines and the progress bar.
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
from vae.metrics.ranking import METRICS
from vae.utils.atomic import discard, written
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
    "recommend_users": "users",
    "recommend_popular_users": "users",
    "recommend_throughput": "users/s",
} | {
    f"{prefix}{metric}{suffix}": None
    for prefix in ("", "final_", "best_", "test_", "popularity_")
    for metric in METRICS
    for suffix in ("", "_se")
}
"""Units of what is logged; metrics and their standard errors have none."""


class Callback(Protocol):
    """Whoever wants the figures of a run as they come."""

    def add(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Take figures of an epoch; those of its validation come after those of its training."""


class RunLog:
    """Logs plain numbers; what is not finite is left out, since JSON has no NaN.

    Args:
        path: JSON lines are appended here.
        enabled: False on every rank but 0.
        callbacks: get every epoch's figures as well.

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
        stream = dllogger.JSONStreamBackend(
            dllogger.Verbosity.VERBOSE, self._descriptor, append=True
        )
        console = dllogger.StdOutBackend(dllogger.Verbosity.VERBOSE)
        self._logger = dllogger.Logger([stream, console])

    def begin(self, workers: Workers, config: Config, descriptions: Iterable[str]) -> None:
        """Log what a run begins with: its parameters, the units, and what is known of its inputs.

        Args:
            workers: for the number of workers.
            config: the flags, logged as the parameters.
            descriptions: further sentences.
        """
        self.say(f"Workers: {workers.description}.")
        self.log("PARAMETER", as_json(config))
        self.units(UNITS)
        for sentence in descriptions:
            self.say(sentence)

    def units(self, units: Mapping[str, str | None]) -> None:
        """Write the metadata lines; people read five digits, JSON holds them all."""
        if self._logger is not None:
            for metric, unit in units.items():
                described = {"unit": unit} if unit else {}
                with self._line() as logger:
                    logger.metadata(metric, described | {"format": ":.5g"})

    def log(self, step: Step, data: Mapping[str, Any]) -> None:
        """Log one step: ``(epoch,)``, or ``()`` for the run's summary. Nothing is logged for {}.

        Raises:
            UserError: the file cannot be written any more.
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
        """The logger for one line, which is flushed: dllogger's full buffer would cut a line."""
        try:
            with written("--log_path", self._path):
                yield self._logger
                self._logger.flush()
        except UserError:
            # At the end of the process dllogger tries once more, and shows a stack trace.
            discard(self._descriptor)
            raise

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal something that is not a measurement."""
        if self._logger is not None:
            with tqdm.external_write_mode():
                print(sentence, flush=True)

    def progress(self, steps: int, done: int) -> tqdm[None]:
        """A bar over the steps of training, ``done`` of them by an earlier run.

        It is drawn on standard error where that is a terminal, below the lines, and leaves nothing
        behind when it is closed.
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
    """A descriptor that appends to a log; where its last line was cut, a new one is begun.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opening a FIFO that nobody reads fails this way, instead of waiting for a reader.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
        os.set_blocking(descriptor, True)
        if _is_cut(path):
            os.write(descriptor, b"\n")
    except OSError as error:
        unread = "a FIFO or a socket that no program reads"
        reason = unread if error.errno == errno.ENXIO else error.strerror
        raise UserError(
            f"--log_path {path}: cannot be written ({reason}); name another file."
        ) from None
    return descriptor


def _is_cut(path: Path) -> bool:
    """Whether a file ends in the middle of a line, as a kill or a full disk leaves it."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _is_defined(value: Any) -> bool:
    return not (hasattr(value, "__float__") and not math.isfinite(value))


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python number it holds; a path as a string."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value
