"""Metrics and statistics of each epoch in ``epochs.csv``, across interruptions of a run."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from vae.errors import UserError
from vae.utils.atomic import read_text, write_whole, written
from vae.utils.json_types import shown

Series = tuple[list[int], list[float]]
"""Epochs, and a metric's value at each of them."""

_MAX_EPOCH = 2**53
"""Above it, an axis of float64 cannot represent every epoch."""

_MAX_VALUE = 2.0**128
"""float32's range, in which all values of training lie."""


class EpochLog:
    """Table with a row per epoch and a column per metric; a callback of ``RunLog``.

    The first epoch that is added is where a run starts: rows of earlier epochs stay, since they
    belong to the resumed run; later ones are removed, since those epochs are trained again.

    An addition appends a row, or overwrites the last one with what the epoch's validation adds, so
    its cost does not grow with the number of epochs. The whole file is written where that does not
    do: with the first addition, and when a metric needs a new column.

    Args:
        path: CSV file, read at once and written with each addition. A last line without a line
            break, as a kill or a full disk leaves it, does not count.

    Raises:
        UserError: the file cannot be read as a table of epochs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = _read(path)
        self._added = False
        self._names: list[str] = []
        self._last_row = self._end = 0  # offsets in the file, in bytes

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add values to the row of an epoch.

        Raises:
            UserError: the file cannot be written.
        """
        if not self._added:
            self._rows = {n: row for n, row in self._rows.items() if n < epoch}
        is_new = epoch not in self._rows
        self._rows.setdefault(epoch, {}).update(values)
        with written("--results_dir", self._path):
            if self._added and set(values) <= set(self._names) and self._is_as_written():
                self._write_row(epoch, self._end if is_new else self._last_row)
            else:
                self._write_table(epoch)
        self._added = True

    def series(self, name: str) -> Series:
        """Return the epochs that have a metric, and its values."""
        points = [(epoch, row[name]) for epoch, row in self._rows.items() if name in row]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def epochs(self) -> list[int]:
        """Return the recorded epochs, ascending."""
        return list(self._rows)

    def _is_as_written(self) -> bool:
        """Return whether the file has the size that the last addition left."""
        return self._path.is_file() and self._path.stat().st_size == self._end

    def _write_row(self, epoch: int, offset: int) -> None:
        """Write the last row at an offset, in a single write."""
        row = self._lines([epoch], header=False)
        with self._path.open("r+b", buffering=0) as file:
            file.seek(offset)
            if file.write(row) < len(row):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            file.truncate()
        self._last_row, self._end = offset, offset + len(row)

    def _write_table(self, last: int) -> None:
        """Write the whole file; the row of the epoch ``last`` is its last one."""
        self._names = [*dict.fromkeys(name for row in self._rows.values() for name in row)]
        table = self._lines(self._rows)
        write_whole(self._path, table)
        self._end = len(table)
        self._last_row = self._end - len(self._lines([last], header=False))

    def _lines(self, epochs: Iterable[int], header: bool = True) -> bytes:
        text = io.StringIO()
        table = csv.DictWriter(text, ["epoch", *self._names], lineterminator="\n")
        if header:
            table.writeheader()
        table.writerows({"epoch": epoch, **self._rows[epoch]} for epoch in epochs)
        return text.getvalue().encode()


def _read(path: Path) -> dict[int, dict[str, float]]:
    """Return the rows of the file by epoch; none if there is no file."""
    try:
        rows: dict[int, dict[str, float]] = {}
        last = 0
        text = read_text(path)
        whole = text[: text.rfind("\n") + 1]
        for row in csv.DictReader(io.StringIO(whole, newline="")):
            epoch = int(row.pop("epoch"))
            if not last < epoch <= _MAX_EPOCH:
                raise ValueError(f"epoch {shown(epoch)} after epoch {last}")
            rows[epoch] = {name: _parse(value) for name, value in row.items() if value}
            last = epoch
        return rows
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read as a table of epochs ({error}); remove it, or name another "
            "--results_dir."
        ) from None


def _parse(text: str) -> float:
    value = float(text)
    if not abs(value) < _MAX_VALUE:
        raise ValueError(f"{shown(text)} is out of range")
    return value
