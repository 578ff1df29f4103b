"""Ratings files on disk: which ones to read, and their bytes, decompressed by content."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from vae.errors import UserError, one_line
from vae.utils.atomic import require_regular_file

FIRST_BYTES = 512
"""How many bytes show the format of a file."""

PARQUET_MAGIC = b"PAR1"
_MAX_NESTED = 3
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OF_A_MAC = re.compile(r"(.*/)?(\._.*|\.DS_Store)|__MACOSX/.*", re.DOTALL)
"""Names of what a Mac adds to a zip archive."""

_COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}

_FOREIGN = {
    rb"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV"),
    rb"ARROW1|FEA1": (
        "a Feather file",
        "convert it with pandas.read_feather(...).to_parquet(...)",
    ),
    rb"ORC\s?[\0-\x08\x0e-\x1f]": (
        "an ORC file",
        "convert it with pandas.read_orc(...).to_parquet(...)",
    ),
    rb"Obj\x01": ("an Avro file", "convert it to Parquet or CSV"),
    rb"\x93NUMPY": ("a NumPy array", "save it with numpy.savetxt(..., delimiter=',')"),
    rb"\x89HDF": ("an HDF5 file", "convert it with pandas.read_hdf(...).to_parquet(...)"),
    rb"SQLite format 3": ("an SQLite database", "export the table as CSV"),
    rb"RD[AX][23]\n|X\n\0\0\0": ("a file of R data", "save it as CSV in R"),
    rb"%PDF": ("a PDF document", "pass the ratings file itself"),
    rb"(\xef\xbb\xbf)?\s*<(?i:!doctype|html)": (
        "an HTML page",
        "download the ratings file itself",
    ),
    rb"(\xef\xbb\xbf)?\s*<(?i:\?xml|error>)": (
        "an XML document, perhaps an error message of the server",
        "download the ratings file itself",
    ),
    rb"version https://git-lfs\.": ("a Git LFS pointer", "fetch the file with 'git lfs pull'"),
    rb"(\.\./)*(\.git)?/annex/objects/": (
        "a git-annex pointer",
        "fetch the file with 'git annex get'",
    ),
    rb"outs:\s*- ": ("a DVC pointer", "fetch the file with 'dvc pull' and pass it"),
    rb"\x04\x22M\x18|LZIP\x01|\xff\x06\0\0sNaPpY|\x1f\x9d": (
        "compressed by LZ4, lzip, Snappy or 'compress'",
        "unpack it",
    ),
    rb"Rar!": ("a RAR archive", "unpack it"),
    rb"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    rb".{257}ustar": ("a tar archive", "unpack it and pass the ratings file"),
    rb"\x80[\x02-\x05]": (
        "a Python pickle, which can run any code and is never loaded",
        "convert it with pandas.read_pickle(...).to_parquet(...) if you trust it",
    ),
    # Lengths of 8 bytes: UTF-16 and UTF-32 have no four bytes of zero there.
    rb".{4}\0{4}.": ("a binary file, such as TFRecord", "convert it to Parquet or CSV"),
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

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""Errors of reading a damaged archive, and of the operating system."""


@dataclass(frozen=True)
class Source:
    """A file of ratings.

    Attributes:
        path: the file.
        constants: columns that Hive-style folder names such as ``user=7`` give it, with their
            value.
        is_part: whether it was found in a folder.
        table: rows in memory, to read in place of the file; ``path`` is then their name in
            messages.
    """

    path: Path
    constants: dict[str, str] = field(default_factory=dict)
    is_part: bool = False
    table: pa.Table | None = None

    @property
    def is_pipe(self) -> bool:
        """Return whether the file can be read once only."""
        return self.table is None and stat.S_ISFIFO(self.path.stat().st_mode)


class Digest:
    """Size and SHA-256 of the bytes that have been read from a file."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()

    def add(self, data: memoryview) -> None:
        """Add the next bytes."""
        self.bytes += len(data)
        self._sha256.update(data)

    @property
    def sha256(self) -> str:
        """Return the digest, hexadecimal."""
        return self._sha256.hexdigest()


def find_sources(paths: Iterable[Path]) -> tuple[list[Source], list[str]]:
    """Return the files among the paths and, sorted by path, those in the folders among them.

    Hidden files, those that begin with an underscore, such as ``_SUCCESS``, and documents, such as
    a README, are skipped.

    Returns:
        The files, and a sentence on the documents that were skipped, if any.

    Raises:
        UserError: a path does not exist or is neither a file, a folder nor a pipe, a folder has no
            ratings file, or a file belongs to a table with a log.
    """
    sources: list[Source] = []
    skipped: list[Path] = []
    for path in paths:
        if not path.is_dir():
            sources.append(Source(path))
            continue
        files = sorted(file for file in path.rglob("*") if _is_visible_file(file, path))
        documents = [file for file in files if _NOT_RATINGS.fullmatch(file.name)]
        parts = [file for file in files if file not in documents]
        if not parts:
            raise UserError(f"{path}: is a folder without ratings files.")
        sources += [Source(file, _constants(file.relative_to(path)), True) for file in parts]
        skipped += documents
    for source in sources:
        _check_readable(source)
    for folder in dict.fromkeys(
        source.path.parent for source in sources if source.path.suffix.lower() == ".parquet"
    ):
        _check_no_table_log(folder)
    names = ", ".join(str(path) for path in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
    return sources, [f"Skipped {names}: not ratings by the name."] if skipped else []


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert errors of the operating system and of damaged archives.

    Raises:
        UserError: the block could not read the file.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: file not found.") from None
    except _DAMAGE as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}).") from None


@contextmanager
def decompressed(path: Path, digest: Digest | None = None) -> Iterator[io.BufferedReader]:
    """Yield a file for reading, decompressed if its first bytes are those of an archive.

    The formats are gzip, bzip2, xz, zstd and zip with a single member, also one in another.

    Args:
        path: regular file or pipe.
        digest: receives the bytes of the file itself.

    Raises:
        UserError: the file is of another format than text.
    """
    with path.open("rb", buffering=0) as raw:
        file = io.BufferedReader(raw if digest is None else _Digesting(raw, digest), 1 << 20)
        content: io.BufferedReader[Any] = file
        for _ in range(_MAX_NESTED):
            content = _decompress(content, path)
        start = content.peek(FIRST_BYTES)
        check_format(path, start)
        if start.startswith(PARQUET_MAGIC):
            raise UserError(
                f"{path}: is a Parquet file that is cut or inside an archive; copy it again, or "
                "unpack it."
            )
        try:
            yield content
        finally:
            content.close()


class _Digesting(io.RawIOBase):
    """A file that adds all bytes that are read from it to a digest."""

    def __init__(self, raw: io.FileIO, digest: Digest) -> None:
        self._raw, self._digest = raw, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        self._digest.add(memoryview(buffer)[:count])
        return count


def _decompress(file: io.BufferedReader[Any], path: Path) -> io.BufferedReader[Any]:
    start = file.peek(FIRST_BYTES)
    for magic, opener in _COMPRESSIONS.items():
        if start.startswith(magic):
            return io.BufferedReader(opener(file), 1 << 20)  # type: ignore[operator]
    if start.startswith(_ZSTD):
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
        return io.BufferedReader(_Readable(stream), 1 << 20)
    if start.startswith(_ZIP):
        return io.BufferedReader(_member(file, path), 1 << 20)
    return file


class _Readable(io.RawIOBase):
    """Arrow's input stream with the interface of Python's files."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _member(file: io.BufferedReader[Any], path: Path) -> Any:
    """Return the only member of a zip archive."""
    if not file.seekable():
        raise UserError(f"{path}: a zip archive cannot be read from a pipe; use 'unzip -p'.")
    archive = zipfile.ZipFile(file)
    files = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in files if not _OF_A_MAC.fullmatch(name)]
    if "xl/workbook.xml" in names:
        raise UserError(f"{path}: is an Excel workbook; save it as CSV.")
    if names and all(name.endswith(".npy") for name in names):
        raise UserError(f"{path}: is a NumPy .npz archive; save its interactions as CSV.")
    if len(names) != 1:
        found = f"{len(names)} files ({one_line(', '.join(names))})" if names else "no file"
        raise UserError(f"{path}: holds {found}; unpack it and pass the ratings file.")
    try:
        return archive.open(names[0])
    except RuntimeError as error:  # encrypted, or another compression
        raise UserError(f"{path}: cannot be unpacked ({one_line(error)}); unpack it.") from None


def check_format(path: Path, start: bytes) -> None:
    """Refuse other formats than text and Parquet by the first bytes.

    Raises:
        UserError: names the format and how to convert it.
    """
    for pattern, (name, fix) in _FOREIGN.items():
        if re.match(pattern, start, re.DOTALL):
            raise UserError(f"{path}: is {name}; {fix}.")


def _check_readable(source: Source) -> None:
    with reading(source.path):
        if not source.is_pipe or source.is_part:
            require_regular_file(source.path)


def _check_no_table_log(folder: Path) -> None:
    """Refuse the Parquet files of a table whose log says which of their rows are deleted.

    Raises:
        UserError: the folder, or one above it, is such a table.
    """
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


def _is_visible_file(path: Path, folder: Path) -> bool:
    names = path.relative_to(folder).parts
    return not path.is_dir() and not any(name.startswith((".", "_")) for name in names)


def _constants(path: Path) -> dict[str, str]:
    """Return the columns in the names of Hive's partition folders, ``column=value``."""
    parts = (folder.partition("=") for folder in path.parts[:-1])
    return {name: _unquoted(value) for name, equals, value in parts if equals and name}


def _unquoted(value: str) -> str:
    """Decode Hive's %XX escapes; its name of the default partition is a missing value."""
    if value == "__HIVE_DEFAULT_PARTITION__":
        return ""
    return re.sub(
        "(%[0-9A-Fa-f]{2})+",
        lambda found: bytes.fromhex(found[0].replace("%", "")).decode(errors="replace"),
        os.fsdecode(value),
    )
