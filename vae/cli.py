"""Command lines from frozen dataclasses, one flag per field, and the exit codes of the programs.

``main.py`` and ``prepare_dataset.py`` both define their flags this way: the default, the range and
the help text of a flag stand in one place.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import re
import stat
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import Field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from vae.errors import UserError
from vae.version import __version__

Options = TypeVar("Options")
Presets = Mapping[str, Mapping[str, Any]]
"""Values of several flags, by the value of one flag that stands for them."""


def flag(
    group: str,
    default: Any,
    help: str,
    ge: float = -math.inf,
    le: float = math.inf,
    lt: float = math.inf,
    choices: Collection[str] | None = None,
    bare: bool | None = None,
    affects: str | None = None,
    needs: Sequence[str] = (),
) -> Any:
    """Define a dataclass field that is a command-line flag of the same name.

    Args:
        group: heading in ``--help``.
        default: value without the flag; a bool makes a switch.
        help: one line for ``--help``.
        ge: values must be greater than or equal to this.
        le: values must be less than or equal to this.
        lt: values must be less than this.
        choices: allowed values; None for all of the type.
        bare: value of the flag without an argument; None if the argument is required.
        affects: result that depends on the value: ``"training"`` (the weights), ``"order"`` (the
            weights, through the users of each batch) or ``"data"`` (the prepared data set).
        needs: other flags; without any of them this one has no effect.
    """
    limits = {"ge": ge, "le": le, "lt": lt}
    metadata = {
        "group": group,
        "help": help,
        "limits": limits,
        "choices": choices,
        "bare": bare,
        "affects": affects,
        "needs": needs,
    }
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    options: type[Options],
    prog: str,
    description: str,
    arguments: Sequence[str] | None,
    presets: Mapping[str, Presets] | None = None,
    fallbacks: Mapping[str, Any] | None = None,
) -> Options:
    """Return the options of a command line.

    Args:
        options: dataclass of ``flag`` fields, or of such dataclasses.
        prog: name of the program.
        description: of the program, for ``--help``.
        arguments: command line; None for that of this process.
        presets: by the name of a flag and its value, the values of flags that are not given. A
            preset of the first flag may set the next one.
        fallbacks: values of flags that are neither given nor in such a preset.

    Raises:
        UserError: a flag is unknown, a value has the wrong type, or ``options`` rejects the values.
    """
    parser = _build_parser(options, prog, description, presets or {})
    values, problems = _given(parser, options, arguments)
    for name, choices in (presets or {}).items():
        if name in values:
            values = {**choices[values[name]], **values}
    values = {**(fallbacks or {}), **values}
    if not problems:
        return from_values(options, values)
    try:
        from_values(options, values)
    except FlagError as error:
        # Without the flags that have no value now: what names one of those may follow from that.
        wrong = set(_FLAG.findall(" ".join(problems)))
        problems += [text for text in error.problems if wrong.isdisjoint(_FLAG.findall(text))]
    raise FlagError([*problems, f"see {prog} --help"])


class FlagError(UserError):
    """Flags that cannot be used.

    Attributes:
        problems: a phrase for each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems) + ".")
        self.problems = problems


def flags_text(values: Mapping[str, Any]) -> str:
    """Return flags as they are given on a command line."""
    return " ".join(f"--{option} {value}" for option, value in values.items())


def _build_parser(
    options: type, prog: str, description: str, presets: Mapping[str, Presets]
) -> _Parser:
    """Return the parser behind ``--help``; its result holds the flags that were given only."""
    epilog = [
        f"--{name} {choice} stands for\n{textwrap.indent(textwrap.fill(flags_text(values)), '  ')}"
        for name, choices in presets.items()
        for choice, values in choices.items()
    ]
    parser = _Parser(
        prog=prog,
        description=description,
        epilog="\n".join(epilog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        exit_on_error=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field, kind in _fields(options):
        name, text = field.metadata["group"], field.metadata["help"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name)
        if kind is bool:
            groups[name].add_argument(f"--{field.name}", action="store_true", help=text)
        else:
            groups[name].add_argument(
                f"--{field.name}",
                # A flag with several values can be repeated.
                action="extend" if kind in _SEVERAL else "store",
                type=_converter(kind),
                nargs=_nargs(kind, field.metadata["bare"]),
                choices=field.metadata["choices"],
                const=field.metadata["bare"],
                help=text if field.default is None else f"{text} (default: {field.default})",
            )
    return parser


def _fields(options: type) -> Iterator[tuple[Field[Any], Any]]:
    """Yield the field and the type of each flag, those of nested dataclasses included."""
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(types[field.name]):
            yield from _fields(types[field.name])
        elif field.metadata:
            yield field, types[field.name]


def flags(options: type) -> dict[str, Field[Any]]:
    """Return the field of each flag by its name."""
    return {field.name: field for field, _ in _fields(options)}


def values_of(options: Any) -> dict[str, Any]:
    """Return the value of each flag by its name."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            values |= values_of(value)
        elif field.metadata:
            values[field.name] = value
    return values


def from_values(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Return options from the values of flags by name; the others have their defaults."""
    types, arguments = get_type_hints(options), {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(types[field.name]):
            arguments[field.name] = from_values(types[field.name], values)
        elif field.name in values:
            arguments[field.name] = values[field.name]
    return options(**arguments)


def out_of_range(options: Any) -> Iterator[str]:
    """Yield a phrase for each number that is out of its flag's range."""
    fields = flags(type(options))
    for name, value in values_of(options).items():
        limits = fields[name].metadata["limits"]
        if isinstance(value, (int, float)) and not _in_range(value, limits):
            yield f"--{name} {value} is out of range: {_range_text(limits)}"


def without_effect(options: Any) -> Iterator[str]:
    """Yield a phrase for each flag that has no effect without another one, none of which is set.

    A flag with its default value passes: it changes nothing.
    """
    changed = changed_values(options)
    for name, field in flags(type(options)).items():
        needs = field.metadata["needs"]
        if needs and name in changed and changed.keys().isdisjoint(needs):
            yield f"--{name} has no effect without {_alternatives(needs)}"


Paths = Iterable[tuple[str, Path | None]]
"""Flags and the paths that they name; None for one that is not given."""


def overwritten(outputs: Paths, folders: Paths, inputs: Paths) -> Iterator[str]:
    """Yield a phrase for each output that would overwrite another one or an input.

    Links are followed. A device such as ``/dev/null`` can be named by several flags.

    Args:
        outputs: files, and folders that hold the output of this flag alone.
        folders: folders of outputs, which may hold other files too.
        inputs: files and folders that are read. An output in such a folder would be read next time.
    """
    given, shared, read = (
        [(flag, path, Path(os.path.realpath(path))) for flag, path in paths if path is not None]
        for paths in (outputs, folders, inputs)
    )
    for number, (flag, path, real) in enumerate(given):
        if _mode(real) not in (None, stat.S_IFREG, stat.S_IFDIR):
            continue
        for other, other_path, other_real in (*given[number + 1 :], *read, *shared):
            may_hold = (other, other_path, other_real) in shared
            if not may_hold and (real == other_real or _are_links(real, other_real)):
                yield f"{flag} {path}: would overwrite the file of {other}; name another"
            elif other_real.is_relative_to(real):
                yield f"{flag} {path}: contains {other} {other_path}; name another"
            elif (
                not may_hold
                and real.is_relative_to(other_real)
                and _mode(other_real) != stat.S_IFREG
            ):
                yield f"{other} {other_path}: contains {flag} {path}; name another"


def _mode(path: Path) -> int | None:
    """Return the kind of a file; None if there is none, or its name is impossible."""
    with suppress(OSError):
        return stat.S_IFMT(path.stat().st_mode)
    return None


def _are_links(one: Path, other: Path) -> bool:
    """Return whether two paths are hard links to one file."""
    return _mode(one) is not None and _mode(other) is not None and one.samefile(other)


def useless(options: Any, names: Iterable[str], reason: str) -> Iterator[str]:
    """Yield a phrase with the reason for each of the flags that is set, and has no effect."""
    changed = changed_values(options)
    for name in names:
        if name in changed:
            yield f"--{name} has no effect {reason}"


def changed_values(options: Any) -> dict[str, Any]:
    """Return the values of the flags that have another value than their default, by name."""
    before = defaults(type(options))
    return {name: value for name, value in values_of(options).items() if value != before[name]}


def defaults(options: type) -> dict[str, Any]:
    """Return the default of each flag by its name."""
    return {name: field.default for name, field in flags(options).items()}


def flags_that_affect(options: type, *results: str) -> tuple[str, ...]:
    """Return the names of the flags whose ``affects`` is one of ``results``."""
    return tuple(n for n, field in flags(options).items() if field.metadata["affects"] in results)


def as_json(options: Any) -> dict[str, Any]:
    """Return the values of the flags as a JSON object."""
    values = values_of(options)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


_OWN_MODULES = ("vae", "main", "prepare_dataset")
"""If one of these is missing, the program is at fault, not its environment."""

_NO_THREAD = "can't start new thread"
"""What Python says when a limit on processes, of the user or the container, is reached."""

_SEVERAL = (tuple[Path, ...] | None,)
"""Types of flags with several values."""

_DASHES = "-\u2013\u2014"
"""First characters of a flag; word processors replace two hyphens by one long dash."""


_FLAG = re.compile(r"--\w+")


class _Parser(argparse.ArgumentParser):
    """A parser that names all invalid flags, not the first one alone."""

    def parse_all(
        self, arguments: Sequence[str] | None
    ) -> tuple[dict[str, Any], list[str], dict[str, str]]:
        """Return the values of valid flags, the unknown arguments, and what is wrong by flag."""
        problems: dict[str, str] = {}
        while True:
            try:
                namespace, unknown = self.parse_known_args(arguments)
            except argparse.ArgumentError as error:
                name = str(error.argument_name)
                problems[name.lstrip("-")] = str(error)
                # The next pass accepts any value of this flag, to get to the others.
                action = self._option_string_actions[name]
                action.type = action.choices = None
                action.nargs = "*" if action.nargs == "+" else "?"
            else:
                valid = {k: v for k, v in vars(namespace).items() if k not in problems}
                return valid, unknown, problems


def _given(
    parser: _Parser, options: type, arguments: Sequence[str] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the valid values of the flags that are given, by name, and a phrase per problem."""
    values, unknown, invalid = parser.parse_all(arguments)
    problems = [*invalid.values()]
    if unknown:
        nearest = ", ".join(_nearest(unknown, flags(options)))
        advice = f" (did you mean {nearest}?)" if nearest else ""
        problems.append(f"unrecognized arguments: {' '.join(unknown)}{advice}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}, problems


def _nearest(unknown: Iterable[str], names: Iterable[str]) -> Iterator[str]:
    """Yield the most similar flag of each unknown argument that looks like one."""
    for argument in unknown:
        name = argument.partition("=")[0].lstrip(_DASHES)
        if argument[:1] in _DASHES:
            found = difflib.get_close_matches(name.lower(), names, n=1)
            yield from (f"--{match}" for match in found)


def _nargs(hint: Any, bare: bool | None) -> str | None:
    """Return argparse's ``nargs`` for a flag: None for one value."""
    if hint in _SEVERAL:
        return "+"
    return None if bare is None else "?"


def _converter(hint: Any) -> Any:
    """Return the function that converts a flag's text to a value of its field's type."""
    if hint in (Path, Path | None, Path | Literal[True] | None, *_SEVERAL):
        return _path
    if hint in (str, str | None):
        return _text
    for plain in (int, float):
        if hint in (plain, plain | None):
            return _number(plain)
    raise TypeError(f"unsupported type of a flag: {hint}")


def _number(plain: type[int] | type[float]) -> Callable[[str], float]:
    """Return ``plain`` for ASCII alone; argparse names it as the type of the flag."""

    def number(text: str) -> float:
        return plain(text.encode("ascii"))

    number.__name__ = plain.__name__
    return number


def _path(text: str) -> Path:
    """Return a path; an empty one, such as an unset shell variable, is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _text(text: str) -> str:
    """Return the text unless it is empty."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def _in_range(value: float, limits: Mapping[str, float]) -> bool:
    return math.isfinite(value) and limits["ge"] <= value <= limits["le"] and value < limits["lt"]


def _range_text(limits: Mapping[str, float]) -> str:
    if math.isfinite(limits["lt"]):
        return f"at least {limits['ge']} and below {limits['lt']}"
    if math.isfinite(limits["le"]):
        return f"{limits['ge']} to {limits['le']}"
    return f"at least {limits['ge']}"


def _alternatives(flags: Sequence[str]) -> str:
    """Return ``--a, --b or --c``."""
    *others, last = (f"--{flag}" for flag in flags)
    return f"{', '.join(others)} or {last}" if others else last


def exit_code_of(
    program: str, run: Callable[[], None], out_of_memory: str = "out of memory."
) -> int:
    """Run a program and return its exit code; an expected error is printed without a stack trace.

    Args:
        program: name, for the message.
        run: the program.
        out_of_memory: message for a ``MemoryError``.

    Returns:
        0 for success, ``UserError.exit_code``, 2 for a missing package, 1 for a failed system call
        or a lack of memory or threads, 130 for Ctrl-C.
    """
    try:
        run()
    except UserError as error:
        return _report(program, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_MODULES:
            raise
        return _report(program, _missing_package(program, error.name), 2)
    except OSError as error:  # such as a full disk
        return _report(program, f"{error}.", 1)
    except MemoryError:
        return _report(program, out_of_memory, 1)
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        return _report(program, f"{_NO_THREAD}; raise the limit on processes (ulimit -u).", 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _missing_package(program: str, module: str) -> str:
    return (
        f"the module {module!r} is not installed in this Python ({sys.executable}); "
        f"run 'make env' once, then .venv/bin/python {program} ..."
    )


def _report(program: str, message: str, exit_code: int) -> int:
    print(f"{program}: error: {message}", file=sys.stderr)
    return exit_code
