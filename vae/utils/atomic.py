"""Atomic writes of files and folders, fsync, locks and digests."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vae.errors import UserError
from vae.utils.signals import unwinding

_TEMPORARY_PREFIX = ".writing-"
_MAX_NAME = 59
"""Characters of a file's name that are repeated in that of its temporary file: a name has at most
255 bytes, a character up to four."""


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path``, to be filled and renamed to it.

    The file is removed at the end unless it was renamed, also if SIGTERM or the like ends the
    process. It is locked while it is in use: that of a killed process is not, and is removed by the
    next process that writes ``path``.

    Raises:
        OSError: the file cannot be created.
    """
    # Exclusive: an existing file of this name, such as a link, is neither opened nor followed.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    with _temporary(path, lambda name: os.open(name, flags, 0o666)) as temporary:
        yield temporary


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; otherwise like :func:`temporary_file`.

    Raises:
        OSError: the folder cannot be created.
    """

    def create(name: Path) -> int:
        name.mkdir()
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    with _temporary(path, create) as temporary:
        yield temporary


def write_whole(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Write a file atomically: a temporary file is renamed to it.

    Args:
        path: file to create or replace.
        content: text is encoded as UTF-8.
        durable: whether to flush the file to the disk before this returns.

    Raises:
        OSError: the file cannot be written; an existing one is unchanged.
    """
    with temporary_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if durable:
            sync(temporary)
        temporary.replace(path)
    if durable:
        sync(path.parent)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders of killed processes; ignore errors.

    Args:
        folder: folder of the temporary files; those in use stay.
        name: file or folder that they belong to; None for any.
    """
    ending = "*" if name is None else f"*-{glob.escape(name[-_MAX_NAME:])}"
    for path in folder.glob(f"{_TEMPORARY_PREFIX}{ending}"):
        if not _is_in_use(path):
            with suppress(OSError):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with its content; of a link, the link itself.

    Raises:
        OSError: the path cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unwritable(where: str, error: OSError | str, fix: str = "", exit_code: int = 1) -> UserError:
    """Return the error for a file or folder that cannot be written.

    Args:
        where: path, after the flag that names it.
        error: reason.
        fix: rest of the sentence.
        exit_code: 1 for a run that failed, 2 for a wrong flag.
    """
    reason = error if isinstance(error, str) else error.strerror or error
    return UserError(f"{where}: cannot be written ({reason}){fix}.", exit_code)


def make_folder(path: Path, flag: str) -> None:
    """Create a folder with its parents and check, before a long run, that it can be written to.

    Args:
        path: folder, which may exist.
        flag: flag that names the folder.

    Raises:
        UserError: the folder cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise unwritable(f"{flag} {path}", error, "; name another folder", exit_code=2) from None


def check_file(path: Path, flag: str) -> None:
    """Check, before a long run, that a file can be written; write nothing.

    Args:
        path: file, which may exist.
        flag: flag that names the file.

    Raises:
        UserError: the file cannot be written.
    """
    check_creatable(path, flag)
    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file.")


def check_creatable(path: Path, flag: str) -> None:
    """Check, before a long run, that a file or folder can be created; leave nothing behind.

    Args:
        path: file or folder to create, with missing parents; ends in a name.
        flag: flag that names the path.

    Raises:
        UserError: the path cannot be created.
    """
    try:
        folder = next(above for above in path.absolute().parents if os.path.lexists(above))
        target = folder / path.name
        with temporary_file(target), suppress(FileNotFoundError):
            target.lstat()  # fails where the name is too long for the disk
    except OSError as error:
        raise unwritable(f"{flag} {path}", error, "; name another path", exit_code=2) from None


def lock_folder(folder: Path, wait: bool = False) -> int:
    """Lock a folder for this process; the lock ends with the process, however that ends.

    The folder itself is locked, without a lock file. Some network file systems do not support such
    locks: there, no process is excluded.

    Args:
        folder: existing folder.
        wait: whether to wait until another process releases the lock.

    Returns:
        A descriptor; closing it releases the lock.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the folder cannot be opened.
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
    """Check, before a file is opened, that reading it can neither block nor go on for ever.

    Raises:
        UserError: the path names a folder, a FIFO, a socket or a device.
        OSError: the path cannot be inspected; FileNotFoundError if it does not exist.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(
            f"{path}: is not a regular file; save the data in a regular file and name that."
        )


@contextmanager
def written(flag: str, path: Path) -> Iterator[None]:
    """Convert a failed write during a run, such as on a full disk, to a ``UserError``.

    Args:
        flag: flag that names the file or folder that the block writes to.
        path: the file or folder.

    Raises:
        UserError: the block raised an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        fix = "; fix this or name another path, and rerun the same command"
        raise unwritable(f"{flag} {path}", error, fix) from None


def discard(descriptor: int) -> None:
    """Redirect a descriptor to ``/dev/null``."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk.

    Raises:
        OSError: the path cannot be opened or flushed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading; a pipe or a device in its place is an error and does not block.

    Raises:
        OSError: the file cannot be read or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123  has its own error for a folder


def read_text(path: Path) -> str:
    """Return the content of a regular file in UTF-8.

    Raises:
        OSError: the file cannot be read or is not a regular file.
        UnicodeDecodeError: the file is not valid UTF-8.
    """
    with open_regular(path) as file:
        return file.read().decode()


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 digest of a file.

    Raises:
        OSError: the file cannot be read or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _temporary(path: Path, create: Callable[[Path], int]) -> Iterator[Path]:
    remove_leftovers(path.parent, path.name)
    with unwinding():
        temporary, descriptor = _locked(path, create)
        try:
            yield temporary
        finally:
            os.close(descriptor)
            if os.path.lexists(temporary):
                with suppress(OSError):  # must not hide an error of the block
                    remove(temporary)


def _locked(path: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """Create a temporary file or folder; return it and the descriptor that holds its lock."""
    while True:
        name = f"{_TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name[-_MAX_NAME:]}"
        temporary = path.with_name(name)
        try:
            descriptor = create(temporary)
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Before it was locked, another process may have removed it as a leftover.
            with suppress(FileNotFoundError):
                if os.path.samestat(temporary.stat(), os.fstat(descriptor)):
                    return temporary, descriptor
        except (KeyboardInterrupt, SystemExit):  # of a signal, just after it was created
            with suppress(OSError):
                remove(temporary)
            raise
        os.close(descriptor)


def _is_in_use(path: Path) -> bool:
    """Return whether a process holds, or may hold, the lock of a temporary file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        return error.errno != errno.ELOOP  # this program creates no links
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
