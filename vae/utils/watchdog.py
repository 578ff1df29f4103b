"""Watchdog of a rank: ends its process where it would wait for another rank forever.

Horovod's own stall check does not notice a process that is stopped, since its background thread
waits for that process too. The ranks that wait say so before they end; the one that hangs is the
one that says nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from itertools import count

_MAX_PERIOD = 5.0
"""Seconds between two looks, at most."""

_LAST_PERIODS = 2
"""Periods from the sentence to the end, in which the other ranks that wait say theirs: the end of
one process ends the job."""


class Watchdog:
    """A thread that ends the process when nothing has been reported for too long.

    Time is counted in periods of the thread, which a process that is stopped does not count: a job
    whose processes are all stopped and continued, as a terminal or a scheduler does, is not a hang.

    Args:
        timeout: seconds; positive.
    """

    def __init__(self, timeout: float) -> None:
        self._period = min(_MAX_PERIOD, timeout / 20)
        self._limit = round(timeout / self._period) - _LAST_PERIODS
        self._numbers = count()
        self.report(None)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def report(self, sentence: str | None) -> None:
        """Note that the main thread begins something, and what to say if that does not end.

        Args:
            sentence: None for what may take any time.
        """
        self._latest = (next(self._numbers), sentence)

    def _run(self) -> None:
        seen, periods = self._latest, 0
        while seen[1] is None or periods < self._limit:
            time.sleep(self._period)
            latest = self._latest
            seen, periods = latest, periods + 1 if latest == seen else 0
        print(f"main.py: error: {seen[1]}.", file=sys.stderr, flush=True)
        time.sleep(_LAST_PERIODS * self._period)
        _end()


def _end() -> None:
    """End the process: its main thread may never return from what it waits for."""
    os._exit(1)
