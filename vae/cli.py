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
from dataclasses import Field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from vae.errors import UserError
from vae.version import __version__

Options = TypeVar("Options")
Presets = Mapping[str, Mapping[str, Any]]
"""Values of several flags, by the value of one flag that stands for them."""

_OWN_MODULES = ("vae", "main", "prepare_dataset")
"""If one of these is missing, the program is at fault, not its environment."""

_NO_THREAD = "can't start new thread"
"""What Python says when a limit on processes, of the user or the container, is reached."""

_DASHES = "-\u2013\u2014"
"""First characters of a flag; word processors replace two hyphens by one long dash."""

_FLAG = re.compile(r"--\w+")


def flag(
    group: str | None,
    default: Any,
    help: str,
    ge: float = -math.inf,
    le: float = math.inf,
    lt: float = math.inf,
    choices: Collection[str] | None = None,
    bare: bool | str | None = None,
    affects: str | None = None,
    needs: Sequence[str] = (),
) -> Any:
    """Define a dataclass field that is a command-line flag of the same name.

    Args:
        group: heading in ``--help``; None for the name of the field that holds the dataclass.
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
    return dataclasses.field(default=default, metadata=dict(locals()))


class FlagError(UserError):
    """Flags that cannot be used.

    Attributes:
        problems: a phrase for each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems) + ".")
        self.problems = problems


def parse(
    options: type[Options],
    prog: str,
    description: str,
    arguments: Sequence[str] | None,
    presets: Mapping[str, Presets] | None = None,
    fallbacks: Mapping[str, Any] | None = None,
) -> Options:
    """Return the options of a command line, by default that of this process.

    ``options`` is a dataclass of ``flag`` fields, or of such dataclasses. ``presets`` holds, by the
    name of a flag and its value, the values of flags that are not given; a preset of the first flag
    may set the next one. ``fallbacks`` are for flags that are neither given nor in such a preset. A
    field ``given`` of the options gets the names of the given flags.

    Raises:
        FlagError: a flag is unknown, a value has the wrong type, or ``options`` rejects the values.
    """
    parser = _build_parser(options, prog, description, presets or {})
    values, problems = parser.parse_all(arguments)
    given = frozenset(values)
    for name, choices in (presets or {}).items():
        if name in values:
            values = {**choices[values[name]], **values}
    values = {**(fallbacks or {}), **values, "given": given}
    if not problems:
        return from_values(options, values)
    try:
        from_values(options, values)
    except FlagError as error:
        # Without the flags that have no value now: what names one of those may follow from that.
        wrong = set(_FLAG.findall(" ".join(problems)))
        problems += [text for text in error.problems if wrong.isdisjoint(_FLAG.findall(text))]
    raise FlagError([*problems, f"see {prog} --help"])


def flags_text(values: Mapping[str, Any]) -> str:
    """Return flags as they are given on a command line."""
    return " ".join(f"--{option} {value}" for option, value in values.items())


def headed_flags(options: type, group: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    """Yield the heading, field and type of each flag, those of nested dataclasses included."""
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(types[field.name]):
            yield from headed_flags(types[field.name], field.name)
        elif field.metadata:
            yield field.metadata["group"] or group, field, types[field.name]


def flags(options: type) -> dict[str, Field[Any]]:
    """Return the field of each flag by its name."""
    return {field.name: field for _, field, _ in headed_flags(options)}


def defaults(options: type) -> dict[str, Any]:
    """Return the default of each flag by its name."""
    return {name: field.default for name, field in flags(options).items()}


def flags_that_affect(options: type, *results: str) -> tuple[str, ...]:
    """Return the names of the flags whose ``affects`` is one of ``results``."""
    return tuple(n for n, field in flags(options).items() if field.metadata["affects"] in results)


def from_values(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Return options from the values of flags by name; the others have their defaults."""
    types, arguments = get_type_hints(options), {}
    for name in types:
        if dataclasses.is_dataclass(types[name]):
            arguments[name] = from_values(types[name], values)
        elif name in values:
            arguments[name] = values[name]
    return options(**arguments)


def values_of(options: Any) -> dict[str, Any]:
    """Return the value of each flag by its name."""
    values: dict[str, Any] = {}
    for name, value in vars(options).items():
        values |= values_of(value) if dataclasses.is_dataclass(value) else {name: value}
    return {name: values[name] for name in flags(type(options))}


def changed_values(options: Any) -> dict[str, Any]:
    """Return the values of the flags that have another value than their default, by name."""
    before = defaults(type(options))
    return {name: value for name, value in values_of(options).items() if value != before[name]}


def as_json(options: Any) -> dict[str, Any]:
    """Return the values of the flags as a JSON object."""
    values = values_of(options)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def out_of_range(options: Any) -> Iterator[str]:
    """Yield a phrase for each number that is out of its flag's range."""
    fields = flags(type(options))
    for name, value in values_of(options).items():
        ge, le, lt = (fields[name].metadata[limit] for limit in ("ge", "le", "lt"))
        limits = f"{ge} to {le}" if math.isfinite(le) else f"at least {ge}"
        limits += f" and below {lt}" if math.isfinite(lt) else ""
        is_number = isinstance(value, (int, float))
        if is_number and not (math.isfinite(value) and ge <= value <= le and value < lt):
            yield f"--{name} {value} is out of range: {limits}"


def without_effect(options: Any) -> Iterator[str]:
    """Yield a phrase for each flag that has no effect without another one, none of which is set.

    A flag with its default value passes: it changes nothing.
    """
    changed = changed_values(options)
    for name, field in flags(type(options)).items():
        needs = field.metadata["needs"]
        if needs and name in changed and changed.keys().isdisjoint(needs):
            alternatives = " or ".join(", ".join(f"--{n}" for n in needs).rsplit(", ", 1))
            yield f"--{name} has no effect without {alternatives}"


def useless(options: Any, names: Iterable[str], reason: str) -> Iterator[str]:
    """Yield a phrase with the reason for each of the flags that is set, and has no effect."""
    changed = changed_values(options)
    yield from (f"--{name} has no effect {reason}" for name in names if name in changed)


Paths = Collection[tuple[str, Path | None]]
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
        status = _status(real)
        if status and stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            continue
        for other, other_path, other_real in (*given[number + 1 :], *read, *shared):
            may_hold = (other, other_path, other_real) in shared
            if not may_hold and _is_same_file(real, other_real):
                yield f"{flag} {path}: would overwrite the file of {other}; name another"
            elif other_real.is_relative_to(real):
                yield f"{flag} {path}: contains {other} {other_path}; name another"
            elif not may_hold and real.is_relative_to(other_real) and not _is_file(other_real):
                yield f"{other} {other_path}: contains {flag} {path}; name another"


def _is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths are one, or hard links to one file."""
    first, second = _status(one), _status(other)
    return one == other or bool(first and second and os.path.samestat(first, second))


def _is_file(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a file; None if there is none, or its name is impossible."""
    try:
        return path.stat()
    except OSError:
        return None


class _Parser(argparse.ArgumentParser):
    """A parser that names all invalid flags, not the first one alone."""

    def parse_all(self, arguments: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
        """Return the valid values of the given flags by name, and a phrase for each problem."""
        problems: dict[str, str] = {}
        while True:
            try:
                namespace, unknown = self.parse_known_args(arguments)
                break
            except argparse.ArgumentError as error:
                name = str(error.argument_name)
                problems[name.lstrip("-")] = str(error)
                # The next pass accepts any value of this flag, to get to the others.
                action = self._option_string_actions[name]
                action.type = action.choices = None
                action.nargs = "*" if action.nargs == "+" else "?"
        phrases = [*problems.values()]
        if unknown:
            nearest = ", ".join(self._nearest(unknown))
            advice = f" (did you mean {nearest}?)" if nearest else ""
            phrases.append(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        given = {name: value for name, value in vars(namespace).items() if name not in problems}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}, phrases

    def _nearest(self, unknown: Iterable[str]) -> Iterator[str]:
        """Yield the most similar flag of each unknown argument that looks like one."""
        names = [action.dest for action in self._actions]
        for argument in unknown:
            name = argument.partition("=")[0].lstrip(_DASHES)
            if argument[:1] in _DASHES:
                found = difflib.get_close_matches(name.lower(), names, n=1)
                yield from (f"--{match}" for match in found)


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
    for heading, field, kind in headed_flags(options):
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        text = field.metadata["help"]
        if kind is bool:
            groups[heading].add_argument(f"--{field.name}", action="store_true", help=text)
            continue
        bare, several = field.metadata["bare"], tuple[Path, ...] in get_args(kind)
        groups[heading].add_argument(
            f"--{field.name}",
            action="extend" if several else "store",  # a flag with several values can be repeated
            type=_converter(Path if several else kind),
            nargs="+" if several else None if bare is None else "?",
            choices=field.metadata["choices"],
            const=bare,
            help=text if field.default is None else f"{text} (default: {field.default})",
        )
    return parser


def _converter(hint: Any) -> Callable[[str], Any]:
    """Return the function that converts a flag's text to a value of its field's type.

    An empty text, such as that of a shell variable that is not set, is refused, and so are digits
    of other scripts.
    """
    kind = next(kind for kind in (Path, str, int, float) if kind in (hint, *get_args(hint)))
    is_number = kind in (int, float)

    def convert(text: str) -> Any:
        if not text and not is_number:
            raise argparse.ArgumentTypeError("the value is empty")
        return kind(text.encode("ascii") if is_number else text)  # type: ignore[arg-type]

    convert.__name__ = kind.__name__  # which argparse shows
    return convert


def exit_code_of(
    program: str, run: Callable[[], None], out_of_memory: str = "out of memory."
) -> int:
    """Run a program and return its exit code; an expected error is printed without a stack trace.

    Returns:
        0 for success, ``UserError.exit_code``, 2 for a missing package, 1 for a failed system call
        or a lack of memory or threads, 130 for Ctrl-C.
    """
    try:
        run()
        return 0
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        code, message = error.exit_code, str(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_MODULES:
            raise
        code, message = 2, f"the module {error.name!r} is not installed in this Python "
        message += f"({sys.executable}); run 'make env' once, then .venv/bin/python {program} ..."
    except OSError as error:  # such as a full disk
        code, message = 1, f"{error}."
    except MemoryError:
        code, message = 1, out_of_memory
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        code, message = 1, f"{_NO_THREAD}; raise the limit on processes (ulimit -u)."
    print(f"{program}: error: {message}", file=sys.stderr)
    return code
