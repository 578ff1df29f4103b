"""The exception for errors that the user can fix."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, a bad flag or an unusable file.

    The message is one sentence: where (flag, file, row), what is wrong, how to fix it. The programs
    print it to standard error without a stack trace and exit with ``exit_code``.

    Attributes:
        exit_code: 2 for bad input or flags (the default), 1 for a failed run.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(text: object, length: int = 100) -> str:
    """Return text from a file or a library as one printable line of limited length."""
    line = " ".join(str(text).split())
    line = line if len(line) <= length else f"{line[: length - 1]}…"
    return "".join(filter(str.isprintable, line))
