"""The figures of each epoch in ``epochs.csv``, those of earlier, resumed runs included."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vae.errors import UserError
from vae.utils.atomic import read_text, write_whole, written
from vae.utils.json_types import shown

Series = tuple[list[int], list[float]]
"""Epochs, and a figure's value at each of them."""

_MAX_EPOCH = 2**53
"""Beyond it, an axis of float64 cannot tell two epochs apart."""

_MAX_FIGURE = 2.0**128
"""float32's range, in which all figures of training lie."""


class EpochLog:
    """One row an epoch, one column a figure; see ``RunLog``.

    The first epoch that is added says where a run starts: rows of earlier epochs stay, as those of
    the run that is resumed, and later ones, which are trained again, go.

    Args:
        path: of the file; read at once and written with each addition.

    Raises:
        UserError: the file cannot be understood.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = _read(path)
        self._added = False

    def add(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Add figures to an epoch's row.

        Raises:
            UserError: the file cannot be written.
        """
        if not self._added:
            self._rows = {n: row for n, row in self._rows.items() if n < epoch}
            self._added = True
        self._rows.setdefault(epoch, {}).update(figures)
        with written("--results_dir", self._path):
            write_whole(self._path, self._text())

    def series(self, name: str) -> Series:
        """A figure over the epochs that have it."""
        points = [(epoch, row[name]) for epoch, row in self._rows.items() if name in row]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def epochs(self) -> list[int]:
        """The epochs that there are rows of, in ascending order."""
        return list(self._rows)

    def _text(self) -> str:
        names = dict.fromkeys(name for row in self._rows.values() for name in row)
        text = io.StringIO()
        table = csv.DictWriter(text, ["epoch", *names], lineterminator="\n")
        table.writeheader()
        table.writerows({"epoch": epoch, **row} for epoch, row in self._rows.items())
        return text.getvalue()


def _read(path: Path) -> dict[int, dict[str, float]]:
    """The rows of the file by epoch; none if there is no file."""
    try:
        rows: dict[int, dict[str, float]] = {}
        last = 0
        for row in csv.DictReader(io.StringIO(read_text(path), newline="")):
            epoch = int(row.pop("epoch"))
            if not last < epoch <= _MAX_EPOCH:
                raise ValueError(f"epoch {shown(epoch)} after epoch {last}")
            rows[epoch] = {name: _figure(value) for name, value in row.items() if value}
            last = epoch
        return rows
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read as a table of epochs ({error}); remove it, or name another "
            "--results_dir."
        ) from None


def _figure(text: str) -> float:
    value = float(text)
    if not abs(value) < _MAX_FIGURE:
        raise ValueError(f"{shown(text)} is out of range")
    return value
