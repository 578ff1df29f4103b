"""Command lines from frozen dataclasses, one flag per field, and the exit codes of the programs.

Both ``main.py`` and ``prepare_dataset.py`` describe their flags this way, so a default, a range and
a help text stand in one place.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_type_hints

from vae import __version__
from vae.errors import UserError

Options = TypeVar("Options")


def flag(
    group: str,
    default: Any,
    help: str,
    ge: float = -math.inf,
    le: float = math.inf,
    lt: float = math.inf,
    choices: Sequence[str] | None = None,
    bare: bool | None = None,
    affects: str | None = None,
) -> Any:
    """A dataclass field that is a command-line flag of the same name.

    Args:
        group: heading in ``--help``.
        default: value without the flag; a bool makes a switch.
        help: one line for ``--help``.
        ge: values must be greater than or equal to this.
        le: values must be less than or equal to this.
        lt: values must be less than this.
        choices: the only values allowed.
        bare: value of the flag given without one, which no text on a command line can give; None
            where it must have one.
        affects: what comes out differently with another value: ``"training"`` (the weights),
            ``"order"`` (the weights, through the users that a batch holds) or ``"data"`` (what is
            prepared); None for neither.
    """
    limits = {"ge": ge, "le": le, "lt": lt}
    metadata = {
        "group": group,
        "help": help,
        "limits": limits,
        "choices": choices,
        "bare": bare,
        "affects": affects,
    }
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    options: type[Options],
    prog: str,
    description: str,
    arguments: Sequence[str] | None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Options:
    """The options that a command line gives.

    Args:
        options: a dataclass of ``flag`` fields.
        prog: name of the program.
        description: what it does, for ``--help``.
        arguments: the command line; None: that of this process.
        presets: other defaults, by the value of ``--preset`` that asks for them.

    Raises:
        UserError: an unknown flag, a value of the wrong type, or whatever ``options`` refuses.
    """
    parser = build_parser(options, prog, description)
    values = _values(parser, arguments)
    if presets and values["preset"]:
        parser.set_defaults(**presets[values["preset"]])
        values = _values(parser, arguments)
    return options(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def build_parser(options: type, prog: str, description: str) -> argparse.ArgumentParser:
    """The parser behind ``--help``, with one flag for each field of ``options``."""
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    types = get_type_hints(options)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in dataclasses.fields(options):
        name, text = field.metadata["group"], field.metadata["help"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name)
        if types[field.name] is bool:
            groups[name].add_argument(f"--{field.name}", action="store_true", help=text)
        else:
            groups[name].add_argument(
                f"--{field.name}",
                # A flag that takes several values may be given several times as well.
                action="extend" if types[field.name] in _SEVERAL else "store",
                type=_converter(types[field.name]),
                nargs=_count(types[field.name], field.metadata["bare"]),
                default=field.default,
                choices=field.metadata["choices"],
                const=field.metadata["bare"],
                help=text if field.default is None else f"{text} (default: %(default)s)",
            )
    return parser


def out_of_range(options: Any) -> Iterator[str]:
    """A phrase for every number that is outside of its flag's range."""
    for field in dataclasses.fields(options):
        value, limits = getattr(options, field.name), field.metadata["limits"]
        if isinstance(value, (int, float)) and not _in_range(value, limits):
            yield f"--{field.name} {value} is out of range, give {_range_text(limits)}"


def as_json(options: Any) -> dict[str, Any]:
    """The options as values that JSON can hold."""
    values = dataclasses.asdict(options)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


_OWN_MODULES = ("vae", "main", "prepare_dataset")
"""That one of these is missing is a mistake of the program, not of its environment."""

_SEVERAL = (tuple[Path, ...] | None,)
"""Types of flags that take several values."""

_DASHES = "-\u2013\u2014"
"""What a flag begins with; word processors make one long dash of two."""


class _Parser(argparse.ArgumentParser):
    """Reports a bad flag the way every other problem is reported."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help.")


def _values(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> dict[str, Any]:
    """The values of all flags by name.

    Raises:
        UserError: as ``parse`` does; a flag that does not exist is refused with the nearest one.
    """
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        nearest = ", ".join(_nearest(unknown, vars(namespace)))
        advice = f" (did you mean {nearest}?)" if nearest else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
    return vars(namespace)


def _nearest(unknown: Iterable[str], names: Iterable[str]) -> Iterator[str]:
    """The flag that each misspelt one may stand for."""
    for argument in unknown:
        name = argument.partition("=")[0].lstrip(_DASHES)
        if argument[:1] in _DASHES:
            found = difflib.get_close_matches(name.lower(), names, n=1)
            yield from (f"--{match}" for match in found)


def _count(hint: Any, bare: bool | None) -> str | None:
    """How many values a flag takes, as argparse writes it: None for one."""
    if hint in _SEVERAL:
        return "+"
    return None if bare is None else "?"


def _converter(hint: Any) -> Any:
    """What turns a flag's text into a value: ``Path`` for a field of type ``Path | None``."""
    if hint in (Path, Path | None, Path | Literal[True] | None, *_SEVERAL):
        return _path
    if hint in (str, str | None):
        return _text
    for plain in (int, float):
        if hint in (plain, plain | None):
            return plain
    raise TypeError(f"no flag can have the type {hint}")


def _path(text: str) -> Path:
    """A path; an empty one, as a script with a variable unset gives it, is not this folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _text(text: str) -> str:
    """A text; an empty one is refused as an empty path is."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def _in_range(value: float, limits: Mapping[str, float]) -> bool:
    return math.isfinite(value) and limits["ge"] <= value <= limits["le"] and value < limits["lt"]


def _range_text(limits: Mapping[str, float]) -> str:
    if math.isfinite(limits["lt"]):
        return f"{limits['ge']} to below {limits['lt']}"
    if math.isfinite(limits["le"]):
        return f"{limits['ge']} to {limits['le']}"
    return f"at least {limits['ge']}"


def exit_code_of(
    program: str, run: Callable[[], None], out_of_memory: str = "out of memory."
) -> int:
    """Run a program and return its exit code; bad input or a full disk is a sentence, not a trace.

    Args:
        program: its name, for the sentence.
        run: does its work.
        out_of_memory: what to say when it needs more than there is.

    Returns:
        0, the error's own exit code, 1 for a failed system call or 130 for Ctrl-C.
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
