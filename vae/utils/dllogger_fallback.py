"""Replacement for NVIDIA's dllogger, which is not on PyPI.

It implements the part of the interface that the recipe uses and writes the same lines with the same
keys; ``vae.utils.run_log`` prefers dllogger if it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

Step = str | tuple[int, ...]
"""``"PARAMETER"``, a tuple such as ``(epoch,)``, or ``()`` for the run's summary."""


class Verbosity:
    """Verbosity levels."""

    OFF = -1
    DEFAULT = 0
    VERBOSE = 1


class Backend(Protocol):
    """An output of the log."""

    verbosity: int

    def log(self, now: datetime, elapsed: float, step: Step, data: Mapping[str, Any]) -> None:
        """Write the values of one step."""

    def metadata(
        self, now: datetime, elapsed: float, metric: str, metadata: Mapping[str, Any]
    ) -> None:
        """Write or store the metadata of a metric, such as its unit."""

    def flush(self) -> None:
        """Pass buffered lines to the operating system."""


class StdOutBackend:
    """Human-readable lines on standard output.

    Args:
        verbosity: level of the backend.
        step_format: takes the step, and returns its text.
        metric_format: takes a metric, its metadata and its value, and returns their text.
        prefix_format: takes the time, and returns the beginning of the line.
    """

    def __init__(
        self,
        verbosity: int,
        step_format: Callable[[Step], str],
        metric_format: Callable[[str, Mapping[str, Any], Any], str],
        prefix_format: Callable[[datetime], str],
    ) -> None:
        self.verbosity = verbosity
        self._step_format = step_format
        self._metric_format = metric_format
        self._prefix_format = prefix_format
        self._metadata: dict[str, Mapping[str, Any]] = {}

    def metadata(
        self, now: datetime, elapsed: float, metric: str, metadata: Mapping[str, Any]
    ) -> None:
        """Store the metadata of a metric for the following lines."""
        self._metadata[metric] = metadata

    def log(self, now: datetime, elapsed: float, step: Step, data: Mapping[str, Any]) -> None:
        """Print one line."""
        texts = (self._metric_format(n, self._metadata.get(n, {}), v) for n, v in data.items())
        print(f"{self._prefix_format(now)}{self._step_format(step)} {' '.join(texts)}")

    def flush(self) -> None:
        """Do nothing: standard output is line-buffered."""


class JSONStreamBackend:
    """Machine-readable lines: ``DLLL`` and a JSON object.

    Args:
        verbosity: level of the backend.
        filename: path, or a descriptor as for ``open``.
        append: whether to keep the existing lines.
    """

    def __init__(self, verbosity: int, filename: str | Path | int, append: bool = False) -> None:
        self.verbosity = verbosity
        self.file = open(filename, "a" if append else "w", encoding="utf-8")  # noqa: PTH123, SIM115

    def metadata(
        self, now: datetime, elapsed: float, metric: str, metadata: Mapping[str, Any]
    ) -> None:
        """Write a line of type METADATA."""
        self._write(now, elapsed, type="METADATA", metric=metric, metadata=metadata)

    def log(self, now: datetime, elapsed: float, step: Step, data: Mapping[str, Any]) -> None:
        """Write a line of type LOG."""
        self._write(now, elapsed, type="LOG", step=step, data=data)

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()

    def _write(self, now: datetime, elapsed: float, **fields: Any) -> None:
        line = {
            "timestamp": str(now.timestamp()),
            "datetime": str(now),
            "elapsedtime": str(elapsed),
            **fields,
        }
        self.file.write(f"DLLL {json.dumps(line)}\n")


class Logger:
    """Sends each line to all backends with sufficient verbosity."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = backends
        self._start = datetime.now()

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Set the metadata of a metric, usually ``{"unit": ...}``."""
        now = datetime.now()
        for backend in self.backends:
            backend.metadata(now, self._elapsed(now), metric, metadata)

    def log(self, step: Step, data: Mapping[str, Any], verbosity: int = Verbosity.VERBOSE) -> None:
        """Log the values of one step."""
        now = datetime.now()
        for backend in self.backends:
            if backend.verbosity >= verbosity:
                backend.log(now, self._elapsed(now), step, data)

    def flush(self) -> None:
        """Flush every backend."""
        for backend in self.backends:
            backend.flush()

    def _elapsed(self, now: datetime) -> float:
        return (now - self._start).total_seconds()
