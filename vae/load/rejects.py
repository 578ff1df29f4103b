"""``--rejects``: the rows of ratings files that were dropped, as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vae.utils.atomic import write_atomically
from vae.utils.outputs import report_write_errors

MAX_REJECTS = 10_000


class Reject(NamedTuple):
    """A row that was dropped: its file and number, a column and why; its values, shortened."""

    file: Path
    row: int
    column: str
    text: str
    reason: str


def write_rejects(path: Path, rejects: Sequence[Reject], dropped: int) -> str:
    """Write rejects, the first of so many dropped rows; return a sentence on them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Reject._fields, *rejects])
    with report_write_errors(f"--rejects {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.getvalue().encode(errors="backslashreplace"))
    which = "" if len(rejects) == dropped else f"the first {len(rejects):,} of "
    return f"{path}: {which}{dropped:,} dropped rows, with the reason of each."
