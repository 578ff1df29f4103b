"""How often something happens in training: after so many epochs, or after so much time."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATTERN = re.compile(r"(?P<minutes>\d+(\.\d+)?)m|(?P<epochs>\d+)e?", re.ASCII)


@dataclass(frozen=True)
class Interval:
    """An interval in epochs or in minutes; the other one is None."""

    epochs: int | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Interval:
        """The interval that ``10m``, ``5e`` or ``5`` stands for.

        Raises:
            ValueError: the text stands for none, or for one of no length.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no interval")
        if match["epochs"] and int(match["epochs"]):
            return cls(epochs=int(match["epochs"]))
        if match["minutes"] and float(match["minutes"]):
            return cls(minutes=float(match["minutes"]))
        raise ValueError(f"{text!r} is an interval of no length")

    def epochs_are_over(self, epoch: int) -> bool:
        """Whether such an interval ends with the ``epoch``-th epoch."""
        return self.epochs is not None and epoch % self.epochs == 0

    def minutes_are_over(self, seconds: float) -> bool:
        """Whether as much time has passed."""
        return self.minutes is not None and seconds >= 60 * self.minutes
