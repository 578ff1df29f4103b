"""Watchdog of a job of several ranks: ends it when a rank hangs, instead of waiting for ever.

Horovod's own stall check does not notice a process that is stopped, since its background thread
waits for that process too. So each rank has a thread that tells rank 0 every few seconds that it
lives and which step it is in, and rank 0 tells it the same, over a TCP connection.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

_MAX_PERIOD = 5.0
"""Seconds between two messages, at most."""

_PATIENCE = 4
"""Periods without a message that need not mean that a rank hangs."""

_MAX_LINE = 4096
"""Bytes; no message is longer."""


class Address(NamedTuple):
    """Where rank 0 listens, and the secret that its messages and those to it begin with."""

    hosts: list[str]
    port: int
    secret: str


@contextmanager
def deadline(seconds: float, sentence: str) -> Iterator[None]:
    """End the process with a sentence, exit code 1, if the block takes longer; 0: never."""
    timer = threading.Timer(seconds, _end, [sentence])
    timer.daemon = True
    if seconds:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass
class _Rank:
    """What is known of a rank.

    Attributes:
        step: step of training that it is in; None outside of training.
        silence: ticks since its last message.
    """

    step: int | None = None
    silence: int = 0


class Watchdog:
    """A thread that ends the process when another rank is silent, or no step ends, for too long.

    Time is counted in ticks of the thread: a job whose processes are all stopped and continued, as
    a terminal or a scheduler does, is not a hang.

    Args:
        rank: this rank.
        size: ranks of the job.
        timeout: seconds; positive.
    """

    def __init__(self, rank: int, size: int, timeout: float) -> None:
        self._rank, self._size, self._timeout = rank, size, timeout
        self._period = min(_MAX_PERIOD, timeout / 20)
        self._limit = round(timeout / self._period) - 2  # so that the job ends within the time
        self._step: int | None = None
        self._idle = 0  # ticks since the main thread's last report
        self._others: dict[int, _Rank] = {}
        self._finished: set[int] = set()
        self._links: list[_Link] = []
        self._server: socket.socket | None = None
        self._address = Address([], 0, "")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def listen(self, one_host: bool) -> Address:
        """Open the socket of rank 0; other hosts reach it unless ``one_host``."""
        self._server = socket.create_server(("127.0.0.1" if one_host else "", 0))
        self._server.setblocking(False)
        hosts = ["127.0.0.1"] if one_host else _own_addresses()
        return Address(hosts, self._server.getsockname()[1], secrets.token_hex(16))

    def start(self, address: Address) -> None:
        """Start the thread; ``address`` is rank 0's."""
        self._address = address
        self._thread.start()

    def report(self, step: int | None) -> None:
        """Note that the main thread works on a step; None: on something else than training."""
        self._step, self._idle = step, 0

    def close(self) -> None:
        """Tell the other ranks that this one has finished, and stop."""
        if self._thread.is_alive():
            self._closed.set()
            self._thread.join()
            for link in self._links:
                link.send(self._message(finished=True))

    def _run(self) -> None:
        while not self._closed.wait(self._period):
            self._connect()
            for link in self._links:
                link.send(self._message())
                for line in link.receive():
                    self._note(line)
            self._links = [link for link in self._links if link.is_open]
            self._check()

    def _connect(self) -> None:
        """Accept new connections on rank 0; open the one to rank 0 on another rank."""
        if self._server is not None:
            with suppress(OSError):
                while True:
                    self._links.append(_Link(self._server.accept()[0]))
        elif not self._links and 0 not in self._finished:
            for host in self._address.hosts:
                with suppress(OSError):
                    address = (host, self._address.port)
                    self._links.append(_Link(socket.create_connection(address, self._period)))
                    return

    def _message(self, finished: bool = False) -> bytes:
        message = [self._address.secret, self._rank, self._step, finished]
        return json.dumps(message).encode() + b"\n"

    def _note(self, line: bytes) -> None:
        """Note what a message says; ignore one that is not of this job."""
        if not line.startswith(self._message()[: len(self._address.secret) + 4]):
            return
        _, rank, step, finished = json.loads(line)
        if finished:
            self._finished.add(rank)
            self._others.pop(rank, None)
        elif rank not in self._finished:
            self._others[rank] = _Rank(step)

    def _check(self) -> None:
        """End the process if a rank is silent or no step ends."""
        for other in self._others.values():
            other.silence += 1
        self._idle = 0 if self._step is None else self._idle + 1
        # Rank 0 knows all ranks; the others wait a little for its sentence.
        limit = self._limit + (0 if self._rank == 0 else _PATIENCE)
        no_step_ends = self._idle > limit and self._step is not None
        # Why no step ends may be a rank that fell silent after this step had begun.
        longest_silence = _PATIENCE if no_step_ends else self._limit
        for rank, other in self._others.items():
            if other.silence > longest_silence:
                # Ranks keep step, so this rank's own step is more recent than the last message.
                step = other.step if self._step is None else self._step
                at = "outside of training" if step is None else f"in step {step + 1}"
                seconds = other.silence * self._period
                _end(f"rank {rank} has been silent for {seconds:.0f} s, {at}; {_FIX}")
        if no_step_ends:
            _end(f"no step has ended for {self._timeout:.0f} s: {self._positions()}; {_FIX}")

    def _positions(self) -> str:
        """Return the step of each rank that is known, in words."""
        known = {rank: other.step for rank, other in self._others.items()} | {
            self._rank: self._step
        }
        steps = {rank: step for rank, step in known.items() if step is not None}
        if len(set(steps.values())) > 1:
            last = min(steps.values())
            behind = ", ".join(f"rank {r}" for r, step in sorted(steps.items()) if step == last)
            return f"{behind} is in step {last + 1} and another in step {max(steps.values()) + 1}"
        silent = sorted(set(range(self._size)) - set(known) - self._finished)
        unknown = f"; nothing was heard of {', '.join(f'rank {r}' for r in silent)}"
        return f"all are in step {max(steps.values()) + 1}" + (unknown if silent else "")


_FIX = (
    "the earlier checkpoints are complete: rerun the same command to resume, without the host that "
    "hangs, or with a longer --stall_timeout if a step takes so long"
)


class _Link:
    """A connection that sends and receives lines without waiting."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._unread = b""
        self.is_open = True

    def send(self, line: bytes) -> None:
        """Send a line; skip it if the other side has not read the ones before."""
        try:
            self._connection.send(line)
        except BlockingIOError:
            pass
        except OSError:
            self._close()

    def receive(self) -> list[bytes]:
        """Return the complete lines that have arrived."""
        try:
            while self.is_open and len(self._unread) <= _MAX_LINE:
                received = self._connection.recv(_MAX_LINE)
                self._unread += received
                if not received:
                    self._close()
        except BlockingIOError:
            pass
        except OSError:
            self._close()
        *lines, self._unread = self._unread.split(b"\n")
        if len(self._unread) > _MAX_LINE:
            self._close()
        return lines

    def _close(self) -> None:
        self.is_open = False
        self._connection.close()


def _own_addresses() -> list[str]:
    """Return names and IPv4 addresses under which other hosts may reach this one."""
    name = socket.gethostname()
    addresses = []
    with suppress(OSError):
        addresses += socket.gethostbyname_ex(name)[2]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; selects the interface of the default route
        addresses.append(probe.getsockname()[0])
    return [*dict.fromkeys([*addresses, name, socket.getfqdn()])]


def _end(sentence: str) -> None:
    """End the process from any thread: the main thread may never return from what it waits for."""
    print(f"main.py: error: {sentence}.", file=sys.stderr, flush=True)
    os._exit(1)
