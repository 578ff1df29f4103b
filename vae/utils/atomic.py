"""Atomic writes of files and folders, fsync, locks and digests.

Raises:
    OSError: a file or folder cannot be read, written or locked.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from vae.errors import UserError
from vae.utils.signals import unwinding

_TEMPORARY_PREFIX = ".writing-"


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file to create, of the same name, and to rename to ``path``.

    It lies in a folder beside ``path``, which is removed at the end, also if SIGTERM or the like
    ends the process. The folder is locked while it is in use: that of a killed process is not, and
    is removed by the next process that writes beside it.
    """
    remove_leftovers(path.parent)
    folder = path.with_name(f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    cleanup = ExitStack()
    with unwinding(cleanup.close):
        # Registered before the folder is created: a signal may come just after that.
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        cleanup.callback(os.close, _create_locked(folder))
        yield folder / path.name


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill and to rename to ``path``; see :func:`temporary_file`."""
    with temporary_file(path) as folder:
        folder.mkdir()
        yield folder


def _create_locked(folder: Path) -> int:
    """Create a folder; return the descriptor that holds its lock."""
    while True:
        folder.mkdir(exist_ok=True)
        # Before it is locked, another process may remove it as a leftover.
        with suppress(FileNotFoundError):
            descriptor = lock_folder(folder, wait=True)
            if os.path.samestat(folder.stat(), os.fstat(descriptor)):
                return descriptor


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of killed processes; those in use, or of other users, stay."""
    for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)


def write_atomically(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Create or replace a file by renaming a temporary one; text is encoded as UTF-8.

    What was at ``path`` stays whole after a failure. ``durable``: before this returns, flush it.
    """
    with temporary_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if durable:
            sync(temporary)
        temporary.replace(path)
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: Path, wait: bool = False) -> int:
    """Lock a folder for this process; return a descriptor, whose closing releases the lock.

    The lock ends with the process, however that ends. The folder itself is locked, without a lock
    file. Some network file systems do not support such locks: there, no process is excluded.
    ``wait`` until another process releases the lock; otherwise that is a BlockingIOError.
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
    """Check, before a file is opened, that reading it can neither block nor go on forever.

    Raises:
        UserError: the path names a folder, a FIFO, a socket or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(
            f"{path}: is not a regular file; save the data in a regular file and name that."
        )


def read_text(path: Path) -> str:
    """Return the content of a regular file in UTF-8; a ValueError if it is not."""
    with _open_regular(path) as file:
        return file.read().decode()


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 digest of a regular file."""
    digest = hashlib.sha256()
    with _open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading; a pipe or a device in its place is an error and does not block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")
