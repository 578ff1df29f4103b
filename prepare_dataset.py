"""Prepare a ratings file: the matrices that ``main.py`` trains and tests on.

::

    python prepare_dataset.py --download                        # MovieLens-20M under /data
    python prepare_dataset.py --dataset mine --ratings mine.csv --user_col u --item_col i \
        --rating_col none
    python prepare_dataset.py --dataset synthetic --data_dir ./demo
"""

from __future__ import annotations

import sys

try:
    import os
    import signal
    from collections.abc import Sequence
    from typing import NoReturn

    from vae.cli import exit_code_of
    from vae.load.config import PrepareConfig, parse_flags
    from vae.utils.console import open_console
except KeyboardInterrupt:  # main() takes those that come later
    sys.exit(130)

_OUT_OF_MEMORY = (
    "out of memory; raise --threshold, pass fewer files, or use a machine with more memory."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    return exit_code_of("prepare_dataset.py", lambda: run(parse_flags(argv)), _OUT_OF_MEMORY)


def run(config: PrepareConfig) -> None:
    """Prepare a data set.

    Raises:
        UserError: the ratings cannot be used, or the data cannot be written.
    """
    # Not above: --help and a wrong flag do not wait for the import of NumPy and Arrow.
    from vae.load.prepare import prepare

    prepare(config)


def _end(number: int, frame: object) -> NoReturn:
    """End the process at once, as SIGKILL would: all writes are atomic.

    An exception could be raised anywhere, for example while an archive is being closed.
    """
    os._exit(128 + number)


if __name__ == "__main__":
    open_console()
    sys.exit(main())
