"""SIGTERM and SIGINT as requests to stop: noted the first time, obeyed at once the second."""

from __future__ import annotations

import os
import signal
import threading
from types import TracebackType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes, while it is entered, that the process was asked to stop.

    Python runs a signal's handler between two of its own instructions only, so not before a running
    step is over. A thread that reads the wake-up descriptor, which the interpreter writes to as the
    signal arrives, knows at once: a second signal need not wait for the step.

    Attributes:
        received: the first signal, None as long as there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> StopSignals:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer)
        self._handlers_before = {number: signal.signal(number, _ignore) for number in _SIGNALS}
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
        """Reads the numbers of the signals until the pipe is closed."""
        while number := os.read(self._reader, 1):
            if number[0] not in _SIGNALS:
                continue
            if self.received is not None:
                os._exit(exit_code(signal.Signals(number[0])))
            self.received = signal.Signals(number[0])


def exit_code(number: signal.Signals) -> int:
    """What a shell reports for a process that this signal ended: 143 or 130."""
    return 128 + number


def _ignore(number: int, frame: object) -> None:
    """A handler of Python's own: without one the wake-up descriptor is not written to."""
