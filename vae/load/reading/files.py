"""Ratings files on disk: which ones to read, and their bytes, decompressed by content.

Raises:
    UserError: a path, a folder or a file cannot be used.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from vae.errors import UserError, one_line
from vae.utils.atomic import require_regular_file

_PARQUET = b"PAR1"
_FIRST_BYTES = 512
_MAX_NESTED = 3
_OF_A_MAC = re.compile(r"(.*/)?(\._.*|\.DS_Store)|__MACOSX/.*", re.DOTALL)
"""Names of what a Mac adds to a zip archive."""

_FOREIGN = {
    rb"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV"),
    rb"\x89HDF": ("an HDF5 file", "convert it with pandas.read_hdf(...).to_parquet(...)"),
    rb"\x93NUMPY": ("a NumPy array", "save it with numpy.savetxt(..., delimiter=',')"),
    rb"\x80[\x02-\x05]": (
        "a Python pickle, which can run any code and is never loaded",
        "convert it with pandas.read_pickle(...).to_parquet(...) if you trust it",
    ),
    rb"PAR1": ("a Parquet file that is cut or inside an archive", "copy it again, or unpack it"),
    rb"version https://git-lfs\.|(\.\./)*(\.git)?/annex/objects/|outs:\s*- ": (
        "a pointer of Git LFS, git-annex or DVC",
        "fetch the file with 'git lfs pull', 'git annex get' or 'dvc pull'",
    ),
    rb"(\xef\xbb\xbf)?\s*<(?i:!doctype|html|\?xml|error>)": (
        "an HTML or XML document, perhaps an error message of the server",
        "download the ratings file itself",
    ),
    # Feather, ORC, Avro, SQLite, R (twice), PDF; LZ4, lzip, Snappy, compress, RAR, 7z and tar;
    # lengths of 8 bytes, as in TFRecord: UTF-16 and UTF-32 have no four bytes of zero there.
    rb"ARROW1|FEA1|ORC\s?[\0-\x08\x0e-\x1f]|Obj\x01|SQLite format 3|RD[AX][23]\n|X\n\0\0\0|%PDF"
    rb"|\x04\x22M\x18|LZIP\x01|\xff\x06\0\0sNaPpY|\x1f\x9d|Rar!|7z\xbc\xaf|.{257}ustar"
    rb"|.{4}\0{4}.": (
        "neither text nor Parquet but a binary file or an archive of another format",
        "convert it to CSV or Parquet, or unpack it",
    ),
}
"""First bytes of other formats, as patterns: their name, and how to convert them."""

_NOT_RATINGS = re.compile(
    r"(readme|licen[cs]e|copying|changelog|md5sums?|sha\d*sums?)(\..*)?|.*\.(md|html?|pdf|xml|crc|md5|sha\d*)",
    re.IGNORECASE,
)
"""Names of files beside the parts of a folder that hold no ratings."""

_TABLE_LOGS = {
    "Delta Lake": "_delta_log",
    "Iceberg": "metadata/[v0-9]*.metadata.json",
    "Hudi": ".hoodie",
}
"""What a table's folder holds if a log decides which rows of its Parquet files count."""

_DAMAGE = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(pa.ArrowException, UnicodeDecodeError),  # of a damaged Parquet file
)
"""Errors of reading a damaged file, and of the operating system."""


class FileError(Exception):
    """What is wrong with a file, without its name, which :func:`reading` adds."""


@dataclass(frozen=True)
class Source:
    """A file of ratings.

    Attributes:
        constants: values of columns that Hive-style folder names such as ``user=7`` give it.
        is_part: whether it was found in a folder.
        table: rows in memory, to read in place of the file; ``path`` is then their name.
    """

    path: Path
    constants: dict[str, str] = field(default_factory=dict)
    is_part: bool = False
    table: pa.Table | None = None

    @property
    def is_pipe(self) -> bool:
        """Return whether the file can be read once only."""
        return self.table is None and stat.S_ISFIFO(self.path.stat().st_mode)


def find_sources(paths: Iterable[Path]) -> tuple[list[Source], list[str]]:
    """Return the files among the paths and, sorted by path, those in the folders among them.

    Hidden files, those that begin with an underscore, such as ``_SUCCESS``, and documents, such as
    a README, are skipped.

    Returns:
        The files, and a sentence on the documents that were skipped, if any.
    """
    sources: list[Source] = []
    skipped: list[Path] = []
    for path in paths:
        if not path.is_dir():
            sources.append(Source(path))
            continue
        files = sorted(
            file
            for file in path.rglob("*")
            if not file.is_dir() and not re.search("(^|/)[._]", str(file.relative_to(path)))
        )
        documents = [file for file in files if _NOT_RATINGS.fullmatch(file.name)]
        parts = [file for file in files if file not in documents]
        if not parts:
            raise UserError(f"{path}: is a folder without ratings files.")
        sources += [Source(file, _constants(file.relative_to(path)), True) for file in parts]
        skipped += documents
    for source in sources:
        with reading(source.path):
            if not source.is_pipe or source.is_part:
                require_regular_file(source.path)
    parquet = (source.path for source in sources if source.path.suffix.lower() == ".parquet")
    for folder in dict.fromkeys(path.parent for path in parquet):
        _check_no_table_log(folder)
    names = ", ".join(str(path) for path in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
    return sources, [f"Skipped {names}: not ratings by the name."] if skipped else []


def _check_no_table_log(folder: Path) -> None:
    """Refuse the Parquet files of a table whose log says which of their rows are deleted."""
    for table in (folder.resolve(), *folder.resolve().parents):
        for kind, log in _TABLE_LOGS.items():
            if next(table.glob(log), None) is not None:
                name = kind.partition(" ")[0].lower()
                raise UserError(
                    f"{table}: is a table of {kind}, whose log decides which rows of its files "
                    "count; export its current rows, e.g. in Spark: "
                    f'spark.read.format("{name}").load("{table}").write.parquet("ratings"), and '
                    "pass these."
                )


def _constants(path: Path) -> dict[str, str]:
    """Return the columns in the names of Hive's partition folders, ``column=value``."""
    parts = (os.fsdecode(folder).partition("=") for folder in path.parts[:-1])
    # Hive's name of the default partition is a missing value.
    return {
        name: "" if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value, errors="replace")
        for name, equals, value in parts
        if equals and name
    }


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert errors on a file, damage among them, to a ``UserError`` with its name."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: file not found.") from None
    except FileError as error:
        raise UserError(f"{path}: {error}.") from None
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"{path}: cannot be read ({reason}).") from None


def is_parquet(source: Source) -> bool:
    """Return whether a file is Parquet by its content, or else by its name."""
    if source.is_pipe:
        return False
    with source.path.open("rb") as file:
        start = file.read(_FIRST_BYTES)
        file.seek(-min(len(_PARQUET), len(start)), io.SEEK_END)
        end = file.read()
    if source.path.suffix.lower() != ".parquet":
        return start[: len(_PARQUET)] == end == _PARQUET
    if not start.startswith(_PARQUET):
        _check_format(start)  # such as a pointer
    return True


@contextmanager
def decompressed(path: Path) -> Iterator[io.BufferedReader]:
    """Yield a file or pipe of text for reading, decompressed if its first bytes say so.

    The formats are gzip, bzip2, xz, zstd and zip with a single member, also one in another.
    """
    with path.open("rb", buffering=0) as raw:
        content: io.BufferedReader[Any] = io.BufferedReader(raw, 1 << 20)
        for _ in range(_MAX_NESTED):
            start = content.peek(_FIRST_BYTES)
            for opener in (one for magic, one in _OPENERS.items() if start.startswith(magic)):
                content = io.BufferedReader(opener(content), 1 << 20)
        _check_format(content.peek(_FIRST_BYTES))
        with content:
            yield content


def _member(file: io.BufferedReader[Any]) -> Any:
    """Return the only member of a zip archive."""
    if not file.seekable():
        raise FileError("a zip archive cannot be read from a pipe; use 'unzip -p'")
    archive = zipfile.ZipFile(file)
    files = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in files if not _OF_A_MAC.fullmatch(name)]
    if "xl/workbook.xml" in names:
        raise FileError("is an Excel workbook; save it as CSV")
    if names and all(name.endswith(".npy") for name in names):
        raise FileError("is a NumPy .npz archive; save its interactions as CSV")
    if len(names) != 1:
        found = f"{len(names)} files ({one_line(', '.join(names))})" if names else "no file"
        raise FileError(f"holds {found}; unpack it and pass the ratings file")
    try:
        return archive.open(names[0])
    except RuntimeError as error:  # encrypted, or another compression
        raise FileError(f"cannot be unpacked ({one_line(error)}); unpack it") from None


_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": partial(pa.CompressedInputStream, compression="zstd"),
    b"PK\x03\x04": _member,
    b"PK\x05\x06": _member,  # without a file
}
"""First bytes of what is decompressed, and how."""


def _check_format(start: bytes) -> None:
    """Refuse other formats than text, by the first bytes, with how to convert them."""
    for pattern, (name, fix) in _FOREIGN.items():
        if re.match(pattern, start, re.DOTALL):
            raise FileError(f"is {name}; {fix}")
