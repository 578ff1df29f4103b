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
        timeout: seconds; 0: it watches nothing.
    """

    def __init__(self, timeout: float) -> None:
        self.report(None)
        if timeout:
            threading.Thread(target=self._run, args=(timeout,), daemon=True).start()

    def report(self, sentence: str | None) -> None:
        """Note what to say if what the main thread begins does not end; None: it may take long."""
        self._latest = [sentence]  # a new object, for the same sentence too

    def _run(self, timeout: float) -> None:
        period = min(_MAX_PERIOD, timeout / 20)
        limit = round(timeout / period) - _LAST_PERIODS
        seen, periods = self._latest, 0
        while seen == [None] or periods < limit:
            time.sleep(period)
            latest = self._latest
            seen, periods = latest, periods + 1 if latest is seen else 0
        print(f"main.py: error: {seen[0]}.", file=sys.stderr, flush=True)
        time.sleep(_LAST_PERIODS * period)
        os._exit(1)  # the main thread may never return from what it waits for
