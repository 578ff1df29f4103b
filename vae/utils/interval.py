"""Intervals of training, in epochs or in minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATTERN = re.compile(r"(?P<minutes>\d{1,9}(\.\d+)?)m|(?P<epochs>\d{1,9})e?", re.ASCII)


@dataclass(frozen=True)
class Interval:
    """An interval in epochs or in minutes; the other attribute is None."""

    epochs: int | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Parse minutes (``10m``) or epochs (``5e`` or ``5``).

        Raises:
            ValueError: the text is not an interval, or the interval is zero.
        """
        match = _PATTERN.fullmatch(text)
        if match and match["epochs"] and int(match["epochs"]):
            return cls(epochs=int(match["epochs"]))
        if match and match["minutes"] and float(match["minutes"]):
            return cls(minutes=float(match["minutes"]))
        raise ValueError(
            f"{text!r} is not a positive interval in minutes (10m) or epochs (5e or 5)"
        )

    def epochs_are_over(self, epoch: int) -> bool:
        """Return whether an interval ends after this epoch, counted from 1."""
        return self.epochs is not None and epoch % self.epochs == 0

    def minutes_are_over(self, seconds: float) -> bool:
        """Return whether so many seconds are an interval or more."""
        return self.minutes is not None and seconds >= 60 * self.minutes
