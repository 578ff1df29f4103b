"""Train, test and benchmark a variational autoencoder for collaborative filtering.

This file turns flags into a configuration and calls what they ask for; the work is done in
``vae/``, where it can be tested. On one machine, and on eight GPUs of one machine::

    python main.py --train --test --checkpoint_dir ./checkpoints
    mpirun -np 8 -H localhost:8 python main.py --train --checkpoint_dir ./checkpoints
"""

from __future__ import annotations

import sys

from vae.config import Config, parse_flags
from vae.errors import exit_code_of
from vae.utils.console import open_console


def main() -> int:
    """Runs the command line; returns the exit code."""
    return exit_code_of("main.py", lambda: run(parse_flags()))


def run(config: Config) -> None:
    """Does what the configuration asks for."""
    # TensorFlow takes seconds to import: --help and a wrong flag do not wait for it.
    from vae.utils.environment import prepare_environment

    prepare_environment(config)
    from vae.recipe import run_recipe

    run_recipe(config)


if __name__ == "__main__":
    open_console()
    sys.exit(main())
