"""Files that appear whole or not at all, reach the disk, and are what they were."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from vae.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place and renames it.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def make_folder(path: Path, flag: str) -> None:
    """Makes sure, before a long run, that its results can be written.

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


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk.

    Raises:
        OSError: it cannot be.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
