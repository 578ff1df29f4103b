"""Metrics and statistics of each epoch in ``epochs.csv``, across interruptions of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vae.errors import UserError
from vae.utils.atomic import read_text, write_whole, written

Series = tuple[list[int], list[float]]
"""Epochs, and a metric's value at each of them."""


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
        with written("--results_dir", self._path):
            write_whole(self._path, text.getvalue())

    def series(self, name: str) -> Series:
        """Return the epochs that have a metric, and its values."""
        points = [(epoch, row[name]) for epoch, row in self._rows.items() if name in row]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def epochs(self) -> list[int]:
        """Return the recorded epochs, ascending."""
        return list(self._rows)


def _read(path: Path) -> dict[int, dict[str, float]]:
    """Return the rows of the file by epoch; none if there is no file."""
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""))
        return {int(row.pop("epoch")): {k: float(v) for k, v in row.items() if v} for row in table}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: is damaged or cannot be read ({error}); remove it, or name another "
            "--results_dir."
        ) from None
