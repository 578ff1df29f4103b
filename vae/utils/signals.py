"""Signals that stop a run: the first requests a graceful stop, the second ends the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,  # the terminal was closed
    signal.SIGUSR1,  # mpirun passes it on; Slurm's --signal
    signal.SIGUSR2,
    signal.SIGXCPU,  # a limit on processor time
)
"""Signals that request a stop."""

_SAME_REQUEST = 1.0
"""Seconds in which further signals belong to the first: GNU ``timeout`` sends two, to the process
and to its group."""


class StopSignals:
    """A context manager that records the first stop signal and exits at the second.

    Python runs a handler only after a running step. A thread reads the wake-up descriptor instead,
    to which the interpreter writes as soon as a signal arrives: a second one does not wait.

    A signal that is ignored at the start stays ignored: ``nohup`` and a shell script that starts
    the process with ``&`` rely on it.

    The handlers of before are back after the block, but not after an exception with which a signal
    ended it: further signals are met like those in the block.

    Attributes:
        received: the first signal; None before.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> StopSignals:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer)
        heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._handlers_before = {number: signal.signal(number, _ignore) for number in heeded}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self.received is not None and kind is not None:
            return
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)
        if self.received is not None:  # it came too late for the block
            signal.raise_signal(self.received)

    def _watch(self) -> None:
        """Read signal numbers until the pipe is closed."""
        first = 0.0
        while number := os.read(self._reader, 1):
            if number[0] not in SIGNALS:
                continue
            if self.received is None:
                first = time.monotonic()
                self.received = signal.Signals(number[0])
            elif time.monotonic() - first > _SAME_REQUEST:
                os._exit(exit_code(number[0]))


@contextmanager
def unwinding(clean_up: Callable[[], object]) -> Iterator[None]:
    """Clean up after a block, also if a signal comes that would end the process at once.

    It raises SystemExit, SIGINT KeyboardInterrupt: in the block, or as soon as ``clean_up`` is
    done. A second one ends the process at once. Signals that have a handler, or are ignored, keep
    it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    unhandled = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in SIGNALS if is_main}
    before = {number: handler for number, handler in before.items() if handler in unhandled}
    raised: list[BaseException] = []
    is_leaving = False

    def stop(number: int, frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        raised.append(
            KeyboardInterrupt() if number == signal.SIGINT else SystemExit(exit_code(number))
        )
        if not is_leaving:
            raise raised[-1]

    try:
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            is_leaving = True
    finally:
        is_leaving = True  # also if a signal came just before that
        try:
            clean_up()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if raised:  # TensorFlow's scopes, entered by half, raise an AttributeError in its place
                raise raised[-1]


def exit_code(number: int) -> int:
    """Return the exit code of a process that a signal ended, such as 143 for SIGTERM."""
    return 128 + number


def _ignore(number: int, frame: object) -> None:
    """Do nothing; without a Python handler nothing is written to the wake-up descriptor."""
