"""Metrics and statistics of each epoch in ``epochs.csv``, across interruptions of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vae.errors import UserError
from vae.utils.atomic import read_text, write_atomically
from vae.utils.outputs import report_write_errors

Series = tuple[list[int], list[float]]
"""Epochs, and a metric's value at each of them."""


_MAX_EPOCH, _MAX_VALUE = 2**53, 2.0**128
"""Bounds of what training writes, which the axes of the curves can represent."""


class EpochLog:
    """Table with a row per epoch and a column per metric; a callback of ``RunLog``.

    Args:
        path: CSV file, read at once and written whole with each addition.
        completed: epochs that this run finds completed; the rows of later ones are removed, since
            those epochs are trained again. None to keep all.

    Raises:
        UserError: the file cannot be read as a table of epochs.
    """

    def __init__(self, path: Path, completed: int | None = None) -> None:
        self._path = path
        rows = _read(path)
        self._rows = {n: row for n, row in rows.items() if completed is None or n <= completed}

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add values to the row of an epoch.

        Raises:
            UserError: the file cannot be written.
        """
        self._rows.setdefault(epoch, {}).update(values)
        names = dict.fromkeys(name for row in self._rows.values() for name in row)
        text = io.StringIO()
        table = csv.DictWriter(text, ["epoch", *names], lineterminator="\n")
        table.writeheader()
        table.writerows({"epoch": n, **row} for n, row in self._rows.items())
        with report_write_errors(f"--results_dir {self._path}"):
            write_atomically(self._path, text.getvalue())

    def series(self, name: str) -> Series:
        """Return the epochs that have a metric, and its values."""
        points = [(epoch, row[name]) for epoch, row in self._rows.items() if name in row]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def epochs(self) -> list[int]:
        """Return the recorded epochs, ascending."""
        return list(self._rows)


def _read(path: Path) -> dict[int, dict[str, float]]:
    """Return the rows of the file by epoch; none if there is no file."""
    rows: dict[int, dict[str, float]] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_text(path), newline="")):
            epoch = int(row.pop("epoch"))
            last = next(reversed(rows), 0)
            if not last < epoch <= _MAX_EPOCH:
                raise ValueError(f"epoch {epoch} after epoch {last}")
            rows[epoch] = {name: float(value) for name, value in row.items() if value}
            if not all(abs(value) < _MAX_VALUE for value in rows[epoch].values()):
                raise ValueError(f"a value of epoch {epoch} is out of range")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: is damaged or cannot be read ({error}); remove it, or name another "
            "--results_dir."
        ) from None
    return rows
