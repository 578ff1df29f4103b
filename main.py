"""Train, test and benchmark a variational autoencoder for collaborative filtering.

This file shows the order of a run; the work is done in ``vae/``, where it can be tested. On one
machine, and on eight GPUs of one machine::

    python main.py --train --test --checkpoint_dir ./checkpoints
    mpirun -np 8 -H localhost:8 python main.py --train --checkpoint_dir ./checkpoints
"""

from __future__ import annotations

import sys

try:
    from collections.abc import Sequence

    from vae.cli import exit_code_of
    from vae.config import parse_flags
    from vae.utils.console import open_console
except KeyboardInterrupt:  # main() takes those that come later
    sys.exit(130)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; return the exit code."""
    return exit_code_of("main.py", lambda: run_modes(argv))


def run_modes(argv: Sequence[str] | None) -> None:
    """Run the modes that the flags name, one after another, on one model.

    Raises:
        UserError: a flag, the data, a checkpoint or a file cannot be used.
    """
    given = parse_flags(argv)
    # TensorFlow takes seconds to import: --help and a wrong flag do not wait for it.
    from vae import modes

    with modes.open_run(given, argv) as run:
        wanted = run.config.modes
        if wanted.check:
            modes.check(run)
            return
        if wanted.train:
            modes.train(run)
        if run.config.needs_checkpoint:
            modes.load(run)
        if run.config.evaluation.blend == "ease":
            modes.blend(run)
        if wanted.test:
            modes.test(run)
        if wanted.score is not None:
            modes.score(run)
        elif wanted.recommend is not None:
            modes.recommend(run)
        if wanted.similar_items is not None:
            modes.similar_items(run)
        if wanted.export_items is not None:
            modes.export_items(run)
        if wanted.export_users is not None:
            modes.export_users(run)
        if wanted.export is not None:
            modes.export(run)
        if wanted.inference_benchmark:
            modes.benchmark(run)


if __name__ == "__main__":
    open_console()
    sys.exit(main())
