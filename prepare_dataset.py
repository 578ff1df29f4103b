"""Turn a ratings file into the matrices that ``main.py`` trains and tests on.

::

    python prepare_dataset.py --download                        # MovieLens-20M under /data
    python prepare_dataset.py --dataset mine --ratings mine.csv --user_col u --item_col i \
        --rating_col none
    python prepare_dataset.py --dataset synthetic --data_dir ./demo
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from vae.errors import exit_code_of
from vae.load.config import PrepareOptions, parse_options
from vae.utils.console import open_console

_OUT_OF_MEMORY = (
    "the memory does not suffice for so many ratings; raise --threshold, give fewer files, or use "
    "a machine with more."
)


def main() -> int:
    """Runs the command line; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    return exit_code_of("prepare_dataset.py", lambda: run(parse_options()), _OUT_OF_MEMORY)


def run(options: PrepareOptions) -> None:
    """Prepares what the options name."""
    # NumPy and Arrow take a while to import: --help and a wrong flag do not wait for them.
    from vae.load.prepare import prepare

    prepare(options)


def _end(number: int, frame: object) -> NoReturn:
    """Ends the program where it stands, as a kill would: it writes nothing that cannot bear that.

    An exception could strike anywhere, in the midst of a lock or of an archive's closing too.
    """
    os._exit(128 + number)


if __name__ == "__main__":
    open_console()
    sys.exit(main())
