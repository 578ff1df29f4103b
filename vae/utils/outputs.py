"""What a run writes: checks before a long run, and errors while it writes.

Raises:
    UserError: a file or folder cannot be written; it names the flag and the path.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae.errors import UserError
from vae.utils.atomic import temporary_file

_FIX = "; fix this or name another path, and rerun the same command"


def write_error(
    where: object, error: OSError | str, fix: str = "", exit_code: int = 1
) -> UserError:
    """Return the error for a path (after its flag, if any) that cannot be written.

    A failed run exits with 1, a wrong flag with 2.
    """
    reason = error if isinstance(error, str) else error.strerror or error
    return UserError(f"{where}: cannot be written ({reason}){fix}.", exit_code)


@contextmanager
def report_write_errors(where: object, fix: str = _FIX, exit_code: int = 1) -> Iterator[None]:
    """Convert an ``OSError`` of the block, such as on a full disk, to :func:`write_error`."""
    try:
        yield
    except OSError as error:
        raise write_error(where, error, fix, exit_code) from None


def make_folder(path: Path, flag: str, only_check: bool = False) -> None:
    """Create a folder with its parents, or check that it can be, and files in it."""
    if only_check and not os.path.lexists(path):
        check_creatable(path, flag)
        return
    with report_write_errors(f"{flag} {path}", "; name another folder", exit_code=2):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()


def check_creatable(path: Path, flag: str) -> None:
    """Check that a file or folder can be created with its parents; leave nothing behind."""
    with report_write_errors(f"{flag} {path}", "; name another path", exit_code=2):
        folder = next(above for above in path.absolute().parents if os.path.lexists(above))
        with temporary_file(folder / path.name) as temporary:
            temporary.touch()


def check_file(path: Path, flag: str) -> None:
    """Check like :func:`check_creatable`; what is there must be a file, which will be replaced."""
    check_creatable(path, flag)
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or a pipe"
        raise UserError(f"{flag} {path}: is a {kind}; name a file.")


def discard(descriptor: int) -> None:
    """Redirect a descriptor to ``/dev/null``."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
