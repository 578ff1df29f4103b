"""The lines of a run that people watch, in 100 columns: epochs, validations and a summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from time import monotonic
from typing import Any

from vae.metrics.ranking import METRICS, SELECTION_METRIC
from vae.utils.dllogger_fallback import Step

_ERROR = f"{SELECTION_METRIC}_se"
_SHOWN_METRICS = 3
"""There is room for these."""


def _title(name: str) -> str:
    """Return a metric's name as papers write it: NDCG@100, Recall@20."""
    return name.upper() if name.startswith("ndcg") else name.capitalize()


_FORMATS = {
    "loss": "loss {:#.4g}",
    "train_throughput": "{:,.0f} users/s",
    SELECTION_METRIC: f"{_title(SELECTION_METRIC)} {{:.3f}}",
    _ERROR: "± {:.3f}",
    **{name: f"{_title(name)} {{:.3f}}" for name in islice(METRICS, _SHOWN_METRICS)},
    "mean_training_throughput": "training {:,.0f} users/s",
    "mean_inference_throughput": "validation {:,.0f} users/s",
    f"best_{SELECTION_METRIC}": f"best {_title(SELECTION_METRIC)} {{:.3f}}",
    "note": "{}",
}
"""Text of each value that the console shows, in the order of a line."""


class ConsoleLines:
    """Selects what the console shows of the log, and formats it.

    Attributes:
        epochs: number of epochs of the run.
    """

    epochs = 0
    _start: tuple[int, float] | None = None

    def formats(self) -> dict[str, Callable[..., str]]:
        """Return the formats of dllogger's ``StdOutBackend``."""
        return {
            "prefix_format": lambda time: "",
            "step_format": self._step_text,
            "metric_format": _metric_text,
        }

    def select(self, step: Step, values: Mapping[str, Any], note: str) -> tuple[Step, Any]:
        """Return the step as ``formats`` expects it, and the values to show, none if it is empty.

        Args:
            step: as for ``RunLog.log``.
            values: all values of the step, by their log keys.
            note: what to show behind them.
        """
        shown = {name: values[name] for name in _FORMATS if name in values}
        if isinstance(step, tuple) and step and "train_epoch_time" in values:
            note = self._time_left(step[0], values["train_epoch_time"])
            step = (*step, self.epochs)
        return step, shown | {"note": note} if shown and note else shown

    def _time_left(self, epoch: int, seconds: float) -> str:
        """Return the time that the other epochs take if they take as long as those of this run."""
        now = monotonic()
        self._start = self._start or (epoch - 1, now - seconds)
        first, start = self._start
        epochs = self.epochs - epoch
        return f"{duration(epochs * (now - start) / (epoch - first))} left" if epochs > 0 else ""

    def _step_text(self, step: Step) -> str:
        """Return ``epoch 12/60`` or ``epoch 12``; the summary has no step."""
        text = f"epoch {'/'.join(map(str, step))}" if step else "summary"
        return text.ljust(len(f"epoch {self.epochs}/{self.epochs}"))


def _metric_text(name: str, metadata: Mapping[str, Any], value: Any) -> str:
    """Return the text of a value; dllogger puts a blank between two of them."""
    return ("" if name == _ERROR else "  ") + _FORMATS[name].format(value)


def duration(seconds: float) -> str:
    """Return a duration, rounded up: ``42 s``, ``5 min``, ``1 h 20 min``."""
    if seconds <= 59:
        return f"{math.ceil(seconds)} s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
