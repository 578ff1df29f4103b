"""Turn a ratings file into the matrices that ``main.py`` trains and tests on.

::

    python prepare_dataset.py                                   # MovieLens-20M under /data
    python prepare_dataset.py --dataset mine --ratings mine.csv --user_col u --item_col i \
        --rating_col none
    python prepare_dataset.py --dataset synthetic --data_dir ./demo
"""

from __future__ import annotations

import sys

from vae.errors import UserError
from vae.prepare_config import PrepareOptions, parse_options


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        run(parse_options())
    except UserError as error:
        print(f"prepare_dataset.py: error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print(
            "prepare_dataset.py: error: the memory does not suffice for so many ratings; raise "
            "--threshold, give fewer files, or use a machine with more.",
            file=sys.stderr,
        )
        return 1
    return 0


def run(options: PrepareOptions) -> None:
    """Prepares what the options name."""
    # NumPy and Arrow take a while to import: --help and a wrong flag do not wait for them.
    from vae.load.prepare import prepare

    prepare(options)


if __name__ == "__main__":
    sys.exit(main())
