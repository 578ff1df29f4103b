"""SIGTERM and SIGINT: the first requests a graceful stop, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from types import TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that request a stop."""


class StopSignals:
    """A context manager that records the first stop signal and exits at the second.

    Python runs a signal handler between two bytecode instructions, so not before a running step
    ends. A thread reads the wake-up descriptor instead, to which the interpreter writes as soon as
    the signal arrives: a second signal does not wait for the step.

    Attributes:
        received: the first signal; None before.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> StopSignals:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer)
        self._handlers_before = {number: signal.signal(number, _ignore) for number in SIGNALS}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _watch(self) -> None:
        """Read signal numbers until the pipe is closed."""
        while number := os.read(self._reader, 1):
            if number[0] not in SIGNALS:
                continue
            if self.received is not None:
                os._exit(exit_code(signal.Signals(number[0])))
            self.received = signal.Signals(number[0])


def exit_code(number: signal.Signals) -> int:
    """Return the exit code of a process that a signal ended: 143 (SIGTERM) or 130 (SIGINT)."""
    return 128 + number


def _ignore(number: int, frame: object) -> None:
    """Do nothing; without a Python handler nothing is written to the wake-up descriptor."""
