"""How fast a run trains."""

from __future__ import annotations


class Throughput:
    """Mean training throughput without the first epochs, which warm up."""

    def __init__(self, warm_up_epochs: int) -> None:
        self._left_to_skip = warm_up_epochs
        self._users = 0
        self._seconds = 0.0

    def add(self, users: int, seconds: float) -> None:
        """Count an epoch."""
        if self._left_to_skip:
            self._left_to_skip -= 1
        else:
            self._users += users
            self._seconds += seconds

    def summary(self) -> dict[str, float]:
        """The mean in users a second; empty when no epoch was left to measure."""
        return {"mean_training_throughput": self._users / self._seconds} if self._users else {}
