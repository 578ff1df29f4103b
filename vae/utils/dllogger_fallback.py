"""Replacement for NVIDIA's dllogger, which is not on PyPI.

It implements the part of the interface that the recipe uses and writes the same lines with the same
keys; ``vae.utils.run_log`` prefers dllogger if it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

Step = str | tuple[int, ...]
"""``"PARAMETER"``, a tuple such as ``(epoch,)``, or ``()`` for the run's summary."""


class Verbosity:
    """The level that the recipe uses; each line is written."""

    VERBOSE = 1


class JSONStreamBackend:
    """The file of machine-readable lines; ``append`` keeps the existing ones."""

    def __init__(self, verbosity: int, filename: str | Path | int, append: bool = False) -> None:
        self.file = open(filename, "a" if append else "w", encoding="utf-8")  # noqa: PTH123, SIM115


class Logger:
    """Writes lines, ``DLLL`` and a JSON object, to the files of all backends."""

    def __init__(self, backends: Sequence[JSONStreamBackend]) -> None:
        self.backends = backends
        self._start = datetime.now()

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """Write a line of type METADATA: usually ``{"unit": ...}`` of a metric."""
        self._write({"type": "METADATA", "metric": metric, "metadata": metadata})

    def log(self, step: Step, data: Mapping[str, Any], verbosity: int = Verbosity.VERBOSE) -> None:
        """Write a line of type LOG: the values of one step."""
        self._write({"type": "LOG", "step": step, "data": data})

    def flush(self) -> None:
        """Flush the files."""
        for backend in self.backends:
            backend.file.flush()

    def _write(self, fields: Mapping[str, Any]) -> None:
        now = datetime.now()
        times = {
            "timestamp": str(now.timestamp()),
            "datetime": str(now),
            "elapsedtime": str((now - self._start).total_seconds()),
        }
        for backend in self.backends:
            backend.file.write(f"DLLL {json.dumps(times | dict(fields))}\n")
