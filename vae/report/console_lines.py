"""How logged values are shown: their units, and the lines of a run in 100 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from time import monotonic
from typing import Any

from vae.metrics.ranking import METRICS, SELECTION_METRIC
from vae.utils.dllogger_fallback import Step

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

_SHOWN_METRICS = 3
"""There is room for these."""


def unit_of(name: str) -> str | None:
    """Return the unit of a logged value; metrics and their standard errors have none."""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)


def _title(name: str) -> str:
    """Return a metric's name as papers write it: NDCG@100, Recall@20."""
    return name.upper() if name.startswith("ndcg") else name.capitalize()


_FORMATS = {
    "loss": "   loss {:#.4g}",
    "train_throughput": "   {:,.0f} users/s",
    SELECTION_METRIC: f"   {_title(SELECTION_METRIC)} {{:.3f}}",
    f"{SELECTION_METRIC}_se": " ± {:.3f}",
    **{name: f"   {_title(name)} {{:.3f}}" for name in islice(METRICS, _SHOWN_METRICS)},
    "mean_training_throughput": "   training {:,.0f} users/s",
    "mean_inference_throughput": "   validation {:,.0f} users/s",
    f"best_{SELECTION_METRIC}": f"   best {_title(SELECTION_METRIC)} {{:.3f}}",
}
"""Text of each value that the console shows, in the order of a line."""


class ConsoleLines:
    """The lines of a run: its epochs, validations and summary."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._start: tuple[int, float] | None = None  # the first epoch of this run and its start

    def line(self, step: Step, values: Mapping[str, Any], note: str = "") -> str:
        """Return what the console shows of what ``RunLog.log`` takes; empty for nothing."""
        shown = [text.format(values[name]) for name, text in _FORMATS.items() if name in values]
        if not shown:
            return ""
        title = f"epoch {step[0]}" if step else "summary"
        if step and "train_epoch_time" in values:
            title += f"/{self._epochs}"
            note = self._time_left(int(step[0]), values["train_epoch_time"])
        width = len(f"epoch {self._epochs}/{self._epochs}")
        return "".join([title.ljust(width), *shown, f"   {note}" if note else ""])

    def _time_left(self, epoch: int, seconds: float) -> str:
        """Return the time that the other epochs take if they take as long as those of this run."""
        now = monotonic()
        self._start = self._start or (epoch - 1, now - seconds)
        first, start = self._start
        epochs = self._epochs - epoch
        return f"{duration(epochs * (now - start) / (epoch - first))} left" if epochs > 0 else ""


def duration(seconds: float) -> str:
    """Return a duration, rounded up: ``42 s``, ``5 min``, ``1 h 20 min``."""
    if seconds <= 59:
        return f"{math.ceil(seconds)} s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
