"""MovieLens from GroupLens: fetched, checked and unpacked into the one form that is read.

What lies in ``extracted`` afterwards is ratings.csv, movies.csv and README.txt in the form of
MovieLens-20M, whichever data set it is.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from vae.errors import UserError
from vae.load.blocks import short
from vae.utils.atomic import temporary_file

Say = Callable[[str], None]

_LICENCE = (
    "MovieLens belongs to GroupLens at the University of Minnesota. It is for research: name it in "
    "publications, ask GroupLens before any commercial use and before passing it on, and claim no "
    "endorsement. What holds is the text in {readme}."
)
_FILES = {"README.txt": "README.txt", "movies.csv": "movies.csv", "ratings.csv": "ratings.csv"}
_FILES_OF_1M = {"README.txt": "README", "movies.csv": "movies.dat", "ratings.csv": "ratings.dat"}
"""The file to write -> the member of the archive; ratings last, for they are looked for first."""

_BLOCK = 1 << 20
_MAX_MEMBER_BYTES = 1 << 32
_TIMEOUT = 60
_PAUSES = (1, 5, 15)
"""Seconds after the first, second, ... attempt in a row that brought nothing."""
_SECONDS_BETWEEN_LINES = 5
_NETWORK_ERRORS = (OSError, HTTPException, ValueError, OverflowError)
"""What urllib raises; the last two on addresses and answers that make no sense."""
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, RuntimeError)


def download(name: str, mirror: str, folder: Path, say: Say) -> None:
    """Fetches a MovieLens data set, unless it is there.

    Args:
        name: of the data set and of its archive.
        mirror: address of the folder that holds the archive.
        folder: where its files go; the archive goes two levels above.
        say: where to tell what is done.

    Raises:
        UserError: it cannot be fetched, is not what it should be, or cannot be written.
    """
    if all((folder / target).is_file() for target in _FILES):
        say(f"{folder} is already downloaded.")
        return
    say(_LICENCE.format(readme=folder / "README.txt"))
    archive = folder.parents[1] / f"{name}.zip"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not archive.exists():
            _fetch(f"{mirror.rstrip('/')}/{name}.zip", archive, say)
        _unpack(archive, name, folder)
        archive.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}).", exit_code=1) from None
    say(f"Unpacked {archive.name} to {folder}.")


def _fetch(url: str, archive: Path, say: Say) -> None:
    """Downloads the archive; what a cut connection or a killed process left is continued."""
    part = archive.with_name(f"{archive.name}.part")
    try:
        checksum = _published_checksum(f"{url}.md5")
        _receive_all(url, part, say)
    except URLError as error:
        raise UserError(
            f"{url}: cannot be downloaded ({_told(error)}); run this again later, which continues "
            f"what has come, or get the file in another way, save it as {archive}, and run this "
            "again.",
            exit_code=1,
        ) from None
    _verify(part, url, checksum, say)
    part.replace(archive)


def _receive_all(url: str, part: Path, say: Say) -> None:
    """Receives a file in as many attempts as it takes, as long as they bring something."""
    vain = 0
    while True:
        before = _size(part)
        try:
            if _receive(url, part, say):
                return
            raise URLError("the connection was cut")
        except HTTPError:
            raise
        except URLError as error:
            vain = 0 if _size(part) > before else vain + 1
            if vain == len(_PAUSES) or not _size(part):
                raise
            say(f"{url}: {_told(error)}; going on.")
        time.sleep(_PAUSES[vain])


def _receive(url: str, part: Path, say: Say) -> bool:
    """Appends what is missing to the part; returns whether it is whole."""
    start = _size(part)
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = _of_network(lambda: urlopen(request, timeout=_TIMEOUT))
    except HTTPError as error:
        if error.code != 416 or not start:  # range not satisfiable
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True
        part.unlink()  # longer than the file: it is of another one
        return _receive(url, part, say)
    with response:
        if response.status != 206:  # partial content; some servers send all of it
            start = 0
        length = _content_length(response.headers.get("Content-Length"))
        total = None if length is None else start + length
        with (
            _open_part(part, append=start > 0) as file,
            _progress(url.rsplit("/", 1)[1], start, total, say) as advance,
        ):
            while block := _of_network(lambda: response.read(_BLOCK)):
                file.write(block)
                advance(len(block))
    return total is None or _size(part) == total


def _open_part(part: Path, append: bool) -> IO[bytes]:
    """Open what has come of an archive; a link under its name is not followed.

    Raises:
        OSError: it cannot be opened.
    """
    mode = os.O_APPEND if append else os.O_TRUNC
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | mode
    return os.fdopen(os.open(part, flags, 0o666), "wb")


def _published_checksum(url: str) -> str | None:
    """The MD5 that the server publishes, if it does."""
    try:
        with _of_network(lambda: urlopen(url, timeout=_TIMEOUT)) as response:
            text = _of_network(lambda: response.read(1000)).decode(errors="replace")
    except HTTPError as error:
        if error.code == 404:
            return None
        raise
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    return found[0].lower() if found else None


def _of_network(call: Callable[[], Any]) -> Any:
    """What a call to the network returns.

    Raises:
        URLError: it failed, however it did.
    """
    try:
        return call()
    except URLError:
        raise
    except _NETWORK_ERRORS as error:
        raise URLError(str(error)) from error


def _content_length(text: str | None) -> int | None:
    """The number of bytes that a server announces, None where it does not.

    Raises:
        URLError: it is no number of bytes.
    """
    if text is not None and not re.fullmatch(r"[0-9]{1,18}", text):
        raise URLError(f"the Content-Length is {short(text)!r}")
    return None if text is None else int(text)


def _verify(part: Path, url: str, checksum: str | None, say: Say) -> None:
    if checksum is None:
        say(f"{url}.md5: there is no checksum; only the archive's own are checked.")
        return
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != checksum:
        part.unlink()
        raise UserError(
            f"{url}: what came has the MD5 {digest.hexdigest()}, which should be {checksum}; it "
            "was removed, run this again.",
            exit_code=1,
        )
    say(f"{url}: downloaded; its MD5 is {checksum}, as published.")


def _unpack(archive: Path, name: str, folder: Path) -> None:
    """Writes the files that are needed, each whole or not at all, and no others."""
    try:
        with zipfile.ZipFile(archive) as members:
            for target, member in (_FILES_OF_1M if name == "ml-1m" else _FILES).items():
                info = members.getinfo(f"{name}/{member}")
                if info.file_size > _MAX_MEMBER_BYTES:
                    raise zipfile.BadZipFile(f"{member} has {info.file_size:,} bytes")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise zipfile.BadZipFile(f"{member} is compressed by another method")
                with temporary_file(folder / target) as temporary:
                    with members.open(info) as source, temporary.open("wb") as file:
                        _CONVERSIONS.get(member, _copy)(source, file)
                    temporary.replace(folder / target)
    except _NO_ARCHIVE as error:
        raise UserError(
            f"{archive}: is not the archive of {name} ({error}); remove it and run this again.",
            exit_code=1,
        ) from None


def _copy(source: IO[bytes], file: IO[bytes]) -> None:
    shutil.copyfileobj(source, file, _BLOCK)


def _convert_ratings(source: IO[bytes], file: IO[bytes]) -> None:
    file.write(b"userId,movieId,rating,timestamp\n")
    for line in source:
        file.write(line.replace(b"::", b","))


def _convert_movies(source: IO[bytes], file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("movieId", "title", "genres"))
    for line in io.TextIOWrapper(source, encoding="latin-1"):
        writer.writerow(line.rstrip("\n").split("::"))
    text.detach()


_CONVERSIONS = {"ratings.dat": _convert_ratings, "movies.dat": _convert_movies}


@contextmanager
def _progress(
    label: str, done: int, total: int | None, say: Say
) -> Iterator[Callable[[int], object]]:
    """What takes the number of new bytes: a bar on a terminal, now and then a line elsewhere."""
    if sys.stderr.isatty():
        with tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=label) as bar:
            yield bar.update
        return
    said = time.monotonic()
    of = "" if total is None else f" of {total / 1e6:,.0f}"

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"{label}: {done / 1e6:,.0f}{of} MB.")

    yield advance


def _told(error: URLError) -> str:
    """What a network error says, on one line; urllib wraps the cause."""
    text = short(str(error.reason if type(error) is URLError else error))
    return "".join(filter(str.isprintable, text))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
