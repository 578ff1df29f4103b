"""Files that appear whole or not at all."""

from __future__ import annotations

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
