"""Ratings files: text and Parquet, one or several, or folders of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vae.errors import UserError
from vae.load.blocks import Block, unreadable
from vae.load.columns import MINIMAL, Columns
from vae.load.csv_file import csv_column_names, read_csv
from vae.load.parquet_file import is_parquet, parquet_column_names, read_parquet
from vae.utils.atomic import require_regular_file


def ratings_files(sources: Iterable[Path]) -> list[Path]:
    """Return the files among the sources and, sorted by path, the files in the folders among them.

    Hidden files and those that begin with an underscore, such as ``_SUCCESS``, are skipped.

    Raises:
        UserError: a file does not exist or is not a regular file, or a folder has no ratings file.
    """
    files = []
    for source in sources:
        parts = [source]
        if source.is_dir():
            parts = sorted(path for path in source.rglob("*") if _is_part(path, source))
            if not parts:
                raise UserError(f"{source}: is a folder without ratings files.")
        for part in parts:
            try:
                require_regular_file(part)
            except OSError as error:
                raise unreadable(part, error) from None
        files += parts
    return files


def column_names(path: Path, separator: str | None = None, quoting: str = MINIMAL) -> list[str]:
    """Return the names of a ratings file's columns.

    Args:
        path: ratings file.
        separator: column separator of a text file; None: a tab for .tsv, else a comma.
        quoting: quoting of a text file.

    Raises:
        UserError: the file cannot be read.
    """
    if is_parquet(path):
        return parquet_column_names(path)
    return csv_column_names(path, separator, quoting)


def read_blocks(path: Path, columns: Columns) -> Iterator[Block]:
    """Yield a ratings file of either format block by block.

    Raises:
        UserError: the file cannot be used.
    """
    return (read_parquet if is_parquet(path) else read_csv)(path, columns)


def _is_part(path: Path, folder: Path) -> bool:
    names = path.relative_to(folder).parts
    return not path.is_dir() and not any(name.startswith((".", "_")) for name in names)
