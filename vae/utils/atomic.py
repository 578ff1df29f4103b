"""Files and folders that appear whole or not at all, reach the disk, and are what they were."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from vae.errors import UserError

_TEMPORARY_PREFIX = ".writing-"
_MAX_NAME = 59
"""Characters, of up to four bytes, of a name that its temporary file repeats: 255 bytes are all
that a name may have."""


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path``, to be filled and renamed to it.

    Where it was not renamed it is removed in the end. As long as it is in use it is locked: what a
    killed process left is not, and the next one to write ``path`` removes that.

    Raises:
        OSError: it cannot be created.
    """
    # Exclusive: whatever lies under this name already, a link say, is neither opened nor followed.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    with _temporary(path, lambda name: os.open(name, flags, 0o666)) as temporary:
        yield temporary


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; otherwise as :func:`temporary_file`.

    Raises:
        OSError: it cannot be created.
    """

    def create(name: Path) -> int:
        name.mkdir()
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    with _temporary(path, create) as temporary:
        yield temporary


def write_whole(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Write a file beside its place and rename it.

    Args:
        path: of the file.
        content: text is encoded as UTF-8.
        durable: whether it has to have reached the disk when this returns.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    with temporary_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if durable:
            sync(temporary)
        temporary.replace(path)
    if durable:
        sync(path.parent)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders of killed processes, as far as they may be removed.

    Args:
        folder: where they lie; those in use stay.
        name: only those that would have become this file or folder.
    """
    ending = "*" if name is None else f"*-{glob.escape(name[-_MAX_NAME:])}"
    for path in folder.glob(f"{_TEMPORARY_PREFIX}{ending}"):
        if not _is_in_use(path):
            with suppress(OSError):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that it holds; a link, not what it names.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path, flag: str) -> None:
    """Make sure, before a long run, that its results can be written.

    Args:
        path: the folder, made with its parents where it is missing.
        flag: what named it.

    Raises:
        UserError: there is no such folder and none can be made, or it cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"{flag} {path}: cannot be written ({error.strerror}); name another folder."
        ) from None


def check_file(path: Path, flag: str) -> None:
    """Make sure, before a long run, that a file can be written at its end; writes nothing.

    Args:
        path: the file, which may be there already.
        flag: what named it.

    Raises:
        UserError: it cannot be written.
    """
    check_creatable(path, flag)
    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file.")


def check_creatable(path: Path, flag: str) -> None:
    """Make sure, before a long run, that a file or folder can be created; leaves nothing behind.

    Args:
        path: what is to be created, with the folders above it that are missing; it ends in a name.
        flag: what named it.

    Raises:
        UserError: it cannot be created.
    """
    try:
        folder = next(above for above in path.absolute().parents if _is_there(above))
        target = folder / path.name
        with temporary_file(target), suppress(FileNotFoundError):
            target.lstat()  # fails where the name is too long for the disk
    except OSError as error:
        raise UserError(
            f"{flag} {path}: cannot be written ({error.strerror}); name another place."
        ) from None


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def lock_folder(folder: Path, wait: bool = False) -> int:
    """Take a folder for this process; the lock goes with the process, however it ends.

    The folder itself is locked, so no file of a fixed name has to be opened in it. Some network
    file systems have no such locks: there, every process gets the folder.

    Args:
        folder: exists.
        wait: whether to wait until another process gives it up.

    Returns:
        A descriptor; closing it gives the folder up.

    Raises:
        BlockingIOError: another process has it.
        OSError: it cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        pass
    return descriptor


def require_regular_file(path: Path) -> None:
    """Refuses, before it is opened, what might keep a reader waiting or never come to an end.

    Raises:
        UserError: the path names a folder, a FIFO, a socket or a device.
        OSError: it cannot be looked at; FileNotFoundError where there is nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(
            f"{path}: is not a regular file; save what it should be read from in a file, and name "
            "that."
        )


@contextmanager
def written(flag: str, path: Path) -> Iterator[None]:
    """Turn a failed write in the middle of a run, on a full disk for example, into a sentence.

    Args:
        flag: what named the file or folder that the block writes to.
        path: the file or folder.

    Raises:
        UserError: the block raised an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{flag} {path}: cannot be written ({error.strerror}); fix this or name another path, "
            "and rerun the same command.",
            exit_code=1,
        ) from None


def discard(descriptor: int) -> None:
    """Send what is yet to be written to a descriptor to ``/dev/null``."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk.

    Raises:
        OSError: it cannot be.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file of a fixed name for reading; where a pipe or a device lies, nothing hangs.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123  has its own error for a folder


def read_text(path: Path) -> str:
    """Return the content of a file of a fixed name, decoded from UTF-8.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path) as file:
        return file.read().decode()


def sha256(path: Path) -> str:
    """Return the hexadecimal digest of a file.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def seal(document: Mapping[str, Any]) -> str:
    """Return a document as JSON text that holds the SHA-256 digest of the document itself."""
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    return json.dumps({**document, "sha256": digest}, indent=2) + "\n"


def unseal(text: str) -> dict[str, Any]:
    """Return the document that :func:`seal` made the text of, without its digest.

    Raises:
        ValueError: the text is not JSON, or differs from the sealed one in any byte.
        RecursionError: it is nested too deeply to be read.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    document.pop("sha256", None)
    if seal(document) != text:
        raise ValueError("its checksum differs from the one written with it")
    return document


@contextmanager
def _temporary(path: Path, create: Callable[[Path], int]) -> Iterator[Path]:
    remove_leftovers(path.parent, path.name)
    temporary, descriptor = _locked(path, create)
    try:
        yield temporary
    finally:
        os.close(descriptor)
        if os.path.lexists(temporary):
            with suppress(OSError):  # what went wrong before matters more
                remove(temporary)


def _locked(path: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """A temporary file or folder and a descriptor that holds its lock."""
    while True:
        name = f"{_TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name[-_MAX_NAME:]}"
        temporary = path.with_name(name)
        descriptor = create(temporary)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Between its creation and its lock another process may have taken it for a leftover.
        if temporary.exists() and temporary.samefile(f"/proc/self/fd/{descriptor}"):
            return temporary, descriptor
        os.close(descriptor)


def _is_in_use(path: Path) -> bool:
    """Whether a process holds the lock of a temporary file, or that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        return error.errno != errno.ELOOP  # a link was never made by this program
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
