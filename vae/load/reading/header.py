"""Which columns a file has and which of them to read: header row, separator, missing columns.

Raises:
    FileError: the file lacks a column, or has it twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from vae.load.config import NUMBER, WHITESPACE, Columns
from vae.load.reading.files import FileError, Source
from vae.load.reading.text import NOT_UTF8, UNDECODED, TextFile

_SEPARATORS = (",", "\t", ";", "|", "::", "<SEP>", WHITESPACE)
_MAX_NAMED = 20

Header = tuple[list[str], bool, str]
"""Names or numbers of the columns, whether the first row is a header, and what was assumed."""


@dataclass
class Wanted:
    """The columns to read of several files; see also ``read_interactions``.

    Attributes:
        names: the columns to read.
        optional: the one of them that a file may lack.
        advice: how to fix a file that lacks a column. If it is not empty, the file is read beside
            the ratings: its separator and header need not be theirs.
        first_header: header of the first text file, which later ones may lack.
    """

    columns: Columns
    names: Sequence[str]
    optional: str | None = None
    advice: str = ""
    time: str | None = None
    allow_single_column: str | None = None
    first_header: list[str] = field(default_factory=list)

    @property
    def lists(self) -> bool:
        """Return whether text files are lists: those of interactions, not of titles or filters."""
        is_of_interactions = tuple(self.names) == self.columns.names and self.optional is None
        return self.columns.lists and is_of_interactions

    def select(self, source: Source, header: Sequence[str]) -> list[str]:
        """Return the columns to read of those that a file has."""
        if [*header] == [self.allow_single_column]:
            return [*header]
        required = self._required(source)
        for name in required:
            if (times := header.count(name)) > 1:
                raise FileError(f"has {times} columns named {name!r}; rename all but one")
            if not times:
                raise self._missing_column(header, name)
        return [*required, *(name for name in header if name == self.optional)]

    def find_header(self, source: Source, rows: list[list[str]]) -> Header:
        """Return the columns of a text file by its first rows, at least one."""
        first, required = rows[0], self._required(source)
        if not self.columns.header:
            if len(first) == 1 and self.allow_single_column is not None:
                return [self.allow_single_column], False, ""
            return [str(number) for number in range(len(first))], False, ""
        if set(required) <= set(first) or first == [self.allow_single_column]:
            return first, True, ""
        has_number = any(map(NUMBER.fullmatch, first))
        # Without a number, only a part of a folder is taken for data: the names may be other ones.
        may_continue = (source.is_part or has_number) and len(first) == len(self.first_header)
        if may_continue and not _is_header(rows):
            return self.first_header, False, "no header row, read with that of the first part"
        if self.advice and has_number:
            # Of histories, one column may be of users or items, and a third one of times.
            for names in (required, [self.columns.user, self.columns.item]):
                if len(names) == len(first):
                    columns = ", ".join(names)
                    return names, False, f"no header row; its columns are taken as {columns}"
        return first, True, ""

    def find_separator(self, source: Source, file: TextFile) -> tuple[str, str]:
        """Return the separator of a text file and, if it was guessed, a sentence on it.

        Without ``--sep`` it is that of the file name's extension, unless only another one splits
        the first rows into the columns that are needed.
        """
        given = self.columns.separator
        if given is not None and not self.advice:
            return given, ""
        default = "\t" if ".tsv" in map(str.lower, source.path.suffixes) else ","
        usual = given or default
        # Items of two words each are no two columns in a file beside ratings that have tabs.
        others = (one for one in _SEPARATORS if given is None or one != WHITESPACE)
        fitting = [
            one
            for one in dict.fromkeys((usual, default, *others))
            if self._fits(source, file.split(one))
        ]
        if len(fitting) > 1 and fitting[-1] == WHITESPACE:
            fitting.pop()  # tabs are white space too
        is_clear = fitting[:1] == [default] or len(fitting) == 1
        if usual in fitting or not is_clear:
            return usual, ""
        shown = "white space" if fitting[0] == WHITESPACE else repr(fitting[0])
        fix = "" if self.advice else "; prepare the data with --sep to set it"
        return fitting[0], f"assuming {shown} between columns{fix}"

    def _fits(self, source: Source, rows: list[list[str]]) -> bool:
        """Return whether first rows of a text file have the columns that are needed."""
        if not rows:
            return False
        header, has_header, _ = self.find_header(source, rows)
        is_uniform = len({len(row) for row in rows}) == 1
        needed = set(self._required(source))
        if not self.columns.header and self.allow_single_column is not None:
            # Without names, several columns are what shows the separator.
            needed = set(self.names) - {self.columns.rating}
        is_alone = self.columns.header and header == [self.allow_single_column]
        return (has_header or is_uniform) and (is_alone or needed <= set(header))

    def _required(self, source: Source) -> list[str]:
        optional = {self.optional, *source.constants}
        return [name for name in dict.fromkeys(self.names) if name not in optional]

    def _missing_column(self, header: Sequence[str], name: str) -> FileError:
        """Return the error for a file without a column of this name, with how to fix it."""
        if any(map(UNDECODED.search, header)):
            return FileError(f"row 1: {NOT_UTF8}")
        has_ids = {self.columns.user, self.columns.item} <= set(header)
        fixes = {
            "prepare the data with --encoding, e.g. utf-16-le": "\0" in "".join(header),
            "close the quote that opens in row 1": "\n" in "".join(header),
            self.advice: bool(self.advice),
            "columns are numbered from 0; pass --sep if the values are split in another way": (
                not self.columns.header
            ),
            "row 1 looks like data: for a file without a header pass --no_header and the numbers "
            "of the columns, such as --user_col 0 --item_col 1 --rating_col 2": (
                any(map(NUMBER.fullmatch, header))
            ),
            "name the column of ratings with --rating_col, or pass --rating_col none": (
                has_ids and name == self.columns.rating
            ),
            "name the column of times with --time_col": has_ids and name == self.time,
            "name the separator with --sep, such as ';' or '\\t'": len(header) == 1,
            "name the columns with --user_col, --item_col and --rating_col": True,
        }
        fix = next(fix for fix, applies in fixes.items() if applies)
        others = ", ".join(repr(other[:100]) for other in header[:_MAX_NAMED])
        if len(header) > _MAX_NAMED:
            others += ", ..."
            fix += (
                "; if each column is an item, one row per interaction is needed, as pandas' "
                "DataFrame.melt makes of them"
            )
        return FileError(f"has no column {name!r} but {others}; {fix}")


def _is_header(rows: list[list[str]]) -> bool:
    """Return whether the first row has no digit although a column below it is all numbers."""
    if len(rows) < 2 or any(re.search("[0-9]", value) or not value for value in rows[0]):
        return False
    columns = zip(*rows[1:], strict=False)
    return any(all(map(NUMBER.fullmatch, values)) for values in columns)
