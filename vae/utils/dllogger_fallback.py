"""Stand-in for NVIDIA's dllogger, for machines where it cannot be installed.

dllogger is not on PyPI. This module offers the part of its interface that the recipe uses and
writes the same lines, key for key; ``vae.utils.run_log`` prefers the real one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

Step = str | tuple[int, ...]
"""``"PARAMETER"``, a tuple such as ``(epoch,)``, or ``()`` for the run's summary."""


class Verbosity:
    """How much a backend prints."""

    OFF = -1
    DEFAULT = 0
    VERBOSE = 1


class Backend(Protocol):
    """Where lines go."""

    verbosity: int

    def log(self, now: datetime, elapsed: float, step: Step, data: Mapping[str, Any]) -> None:
        """Write one step's values."""

    def metadata(
        self, now: datetime, elapsed: float, metric: str, metadata: Mapping[str, Any]
    ) -> None:
        """Write or remember what is known of a metric (its unit)."""

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""


class StdOutBackend:
    """Lines for people: ``DLL <time> - <step> name : value unit ...``."""

    def __init__(self, verbosity: int) -> None:
        self.verbosity = verbosity
        self._metadata: dict[str, Mapping[str, Any]] = {}

    def metadata(
        self, now: datetime, elapsed: float, metric: str, metadata: Mapping[str, Any]
    ) -> None:
        """Remember the metric's unit and format for the lines to come."""
        self._metadata[metric] = metadata

    def log(self, now: datetime, elapsed: float, step: Step, data: Mapping[str, Any]) -> None:
        """Print one line."""
        print(f"DLL {now} - {step} {' '.join(self._text(*item) for item in data.items())}")

    def flush(self) -> None:
        """Standard output flushes by itself."""

    def _text(self, name: str, value: Any) -> str:
        metadata = self._metadata.get(name, {})
        text = f"{{{metadata.get('format', '')}}}".format(value)
        return f"{name} : {text} {metadata.get('unit', '')}"


class JSONStreamBackend:
    """Lines for programs: ``DLLL`` and a JSON object; as ``open``, it takes a descriptor too."""

    def __init__(self, verbosity: int, filename: str | Path | int, append: bool = False) -> None:
        self.verbosity = verbosity
        # Open for the whole run: the process's end closes it.
        self._file = open(filename, "a" if append else "w", encoding="utf-8")  # noqa: PTH123, SIM115

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
        self._file.flush()

    def _write(self, now: datetime, elapsed: float, **fields: Any) -> None:
        line = {
            "timestamp": str(now.timestamp()),
            "datetime": str(now),
            "elapsedtime": str(elapsed),
            **fields,
        }
        self._file.write(f"DLLL {json.dumps(line)}\n")


class Logger:
    """Sends each line to every backend that is verbose enough."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = backends
        self._start = datetime.now()

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Describe a metric, usually ``{"unit": ...}``."""
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
