"""MovieLens: download from GroupLens or a mirror, verification, and conversion to one format.

Each data set ends up in ``extracted`` as ratings.csv and movies.csv in the format of MovieLens-20M,
with its README.

Raises:
    UserError: the archive cannot be downloaded or is invalid, or a file cannot be written.
"""

from __future__ import annotations

import csv
import io
import logging
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from vae.errors import UserError, one_line
from vae.utils.atomic import temporary_file, temporary_folder
from vae.utils.outputs import report_write_errors

Log = Callable[[str], None]

_LICENCE = (
    "MovieLens belongs to GroupLens at the University of Minnesota. It is for research: cite it in "
    "publications, ask GroupLens before any commercial use and before redistributing it, and claim "
    "no endorsement. The binding terms are in {readme}."
)
_MEMBERS = ("README.txt", "movies.csv", "ratings.csv")
_OLDER_MEMBERS = {
    "ml-100k": ("README", "u.item", "u.data"),
    "ml-1m": ("README", "movies.dat", "ratings.dat"),
    "ml-10m": ("README.html", "movies.dat", "ratings.dat"),
}
"""README, titles and ratings in the archive."""

_TITLES = {
    "movies.dat": ("::", ("movieId", "title", "genres")),
    "u.item": ("|", ("movieId", "title")),
}
"""Separator and first columns of titles without a header."""

_FOLDERS = {"ml-10m": "ml-10M100K"}
"""Folder inside the archive, where that is not named after the data set."""

_BLOCK_BYTES = 1 << 20
_MAX_MEMBER_BYTES = 1 << 32
_TIMEOUT_SECONDS = 60
_RETRIES = 2
_INVALID_ARCHIVE = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, RuntimeError)
"""What zipfile raises on an archive that is damaged or is not one."""


def obtain(name: str, archive: Path | None, mirror: str, folder: Path, log: Log) -> None:
    """Unpack the archive of a MovieLens data set as GroupLens publishes it, unless its files exist.

    Args:
        name: data set, which is also the name of its archive.
        archive: zip archive; None to download it. One that lies two levels above the folder is then
            unpacked and stays; a downloaded one lies there until it is unpacked.
        mirror: URL of the folder that holds the archive.
        folder: where the files go.
        log: takes a line of output.
    """
    files = _files(name)
    if all((folder / file).is_file() for file in files):
        log(f"{folder} is already {'downloaded' if archive is None else 'unpacked'}.")
        return
    log(_LICENCE.format(readme=folder / next(iter(files))))
    path = archive or folder.parents[1] / f"{name}.zip"
    is_downloaded = archive is None and not path.exists()
    with report_write_errors(folder):
        if is_downloaded:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(mirror.rstrip("/"), path, log)
        if not path.is_file():
            raise UserError(f"{path}: file not found.")
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(path, name, folder)
        if is_downloaded:
            path.unlink()
    log(f"Unpacked {path.name} to {folder}.")


def _files(name: str) -> dict[str, str]:
    """Return the files to write, ratings last, and the members of the archive that they are of."""
    readme, movies, ratings = _OLDER_MEMBERS.get(name, _MEMBERS)
    readme_file = readme if "." in readme else f"{readme}.txt"
    return {readme_file: readme, "movies.csv": movies, "ratings.csv": ratings}


def _fetch(mirror: str, archive: Path, log: Log) -> None:
    """Download an archive and compare it with the MD5 that the server publishes, if any."""
    import pooch
    import requests

    # Both report failed attempts on standard error, which is for the final error alone.
    for logger in (pooch.get_logger(), logging.getLogger("urllib3")):
        logger.setLevel(logging.ERROR)
    url = f"{mirror}/{archive.name}"
    log(f"Downloading {url}.")
    try:
        md5 = _published_md5(f"{url}.md5")
        with temporary_folder(archive) as folder:
            fetcher = pooch.create(
                path=folder.absolute(),  # pooch would expand a leading ~
                base_url=f"{mirror}/",
                registry={archive.name: f"md5:{md5}" if md5 else None},
                retry_if_failed=_RETRIES,
            )
            downloader = pooch.HTTPDownloader(
                progressbar=sys.stderr.isatty(), chunk_size=_BLOCK_BYTES, timeout=_TIMEOUT_SECONDS
            )
            downloaded = Path(fetcher.fetch(archive.name, downloader=downloader))
            if not zipfile.is_zipfile(downloaded):  # cut where neither MD5 nor length is known
                raise ValueError("the response is not a whole zip archive")
            downloaded.replace(archive)
    # The latter two come from invalid URLs and responses, ValueError from a wrong MD5 as well.
    except (requests.RequestException, ValueError, OverflowError) as error:
        raise UserError(
            f"{url}: cannot be downloaded ({_root_cause(error)}); rerun the same command later, or "
            f"save the file as {archive} and rerun it.",
            exit_code=1,
        ) from None
    if md5 is None:
        log(f"{url}.md5: not found; only the checksums inside the archive are verified.")
    else:
        log(f"{url}: downloaded; its MD5 is {md5}, as published.")


def _published_md5(url: str) -> str | None:
    """Return the MD5 that a server publishes, in lower case; None if it publishes none."""
    import requests

    with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        if response.status_code == 404:
            return None
        response.raise_for_status()
        text = next(response.iter_content(1000), b"").decode(errors="replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    return found[0].lower() if found else None


def _root_cause(error: BaseException) -> str:
    """Return the first sentence of the exception that started a chain, on one printable line."""
    while error.__context__ is not None:
        error = error.__context__
    return one_line(str(error).partition(". ")[0] or type(error).__name__, 200)


def _unpack(archive: Path, name: str, folder: Path) -> None:
    """Write the files of the data set, each atomically, and no others."""
    try:
        with zipfile.ZipFile(archive) as members:
            for target, member in _files(name).items():
                info = members.getinfo(f"{_FOLDERS.get(name, name)}/{member}")
                if info.file_size > _MAX_MEMBER_BYTES:
                    raise zipfile.BadZipFile(f"{member} has {info.file_size:,} bytes")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise zipfile.BadZipFile(f"unsupported compression of {member}")
                with temporary_file(folder / target) as temporary:
                    with members.open(info) as source, temporary.open("wb") as file:
                        _convert(source, file, member, name)
                    temporary.replace(folder / target)
    except _INVALID_ARCHIVE as error:
        raise UserError(
            f"{archive}: is not the archive of {name} ({error}); remove it and rerun the same "
            "command.",
            exit_code=1,
        ) from None


def _convert(source: IO[bytes], file: IO[bytes], member: str, name: str) -> None:
    """Write a member in the format of MovieLens-20M."""
    if member in ("ratings.dat", "u.data"):
        file.write(b"userId,movieId,rating,timestamp\n")
        for line in source:
            file.write(line.replace(b"::", b",").replace(b"\t", b","))
    elif member in _TITLES:
        separator, columns = _TITLES[member]
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for title in io.TextIOWrapper(source, "utf-8" if name == "ml-10m" else "latin-1"):
            writer.writerow(title.rstrip("\n").split(separator)[: len(columns)])
        text.detach()
    else:
        shutil.copyfileobj(source, file, _BLOCK_BYTES)
