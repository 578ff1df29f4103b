"""How a program ends: the exception that speaks to the person, and the exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable

_OWN_MODULES = ("vae", "main", "prepare_dataset")
"""That one of these is missing is a mistake of the program, not of its environment."""


class UserError(Exception):
    """Bad input, a bad flag or an unusable file.

    The message is one sentence that names the file, row or flag and the mend. Entry points print it
    to standard error without a stack trace and exit with ``exit_code``.

    Attributes:
        exit_code: 2 for bad input or flags (the default), 1 for a run that failed by itself.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code_of(
    program: str, run: Callable[[], None], out_of_memory: str = "the memory does not suffice."
) -> int:
    """Runs a program; what goes wrong by no mistake of its own is a sentence and an exit code.

    Args:
        program: its name, for the sentence.
        run: does its work.
        out_of_memory: what to say when it needs more than there is.
    """
    try:
        run()
    except UserError as error:
        return _report(program, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_MODULES:
            raise
        return _report(program, _without_environment(program, error.name), 2)
    except OSError as error:  # a full disk, say, wherever it strikes
        return _report(program, f"{error}.", 1)
    except MemoryError:
        return _report(program, out_of_memory, 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _without_environment(program: str, module: str) -> str:
    return (
        f"the module {module!r} is not installed in this Python ({sys.executable}); "
        f"run 'make env' once, then .venv/bin/python {program} ..."
    )


def _report(program: str, sentence: str, exit_code: int) -> int:
    print(f"{program}: error: {sentence}", file=sys.stderr)
    return exit_code
