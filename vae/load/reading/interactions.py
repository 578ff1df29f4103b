"""Interactions of users with items, from ratings files of any kind.

Memory holds two codes of 4 bytes per interaction, and the text of each distinct id once.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae.errors import UserError, one_line
from vae.load.config import Columns
from vae.load.reading.files import Digest, Source
from vae.load.reading.tables import Block, Tables, named
from vae.load.reading.text import ONE_ROW_EACH
from vae.load.reading.values import NUMBER, parse_time
from vae.utils.threads import prefetch

MAX_ID_LENGTH = 256
"""Characters; ids are stored at a fixed width, so a single huge one would take gigabytes."""

NULLS = ("null", "(null)", "\\n", "nan", "nat", "none", "na", "n/a", "<na>", "#n/a")
"""Texts that programs write for a missing value, in lower case."""

_PART = 1 << 20
_SAMPLED_IDS = 1000
_EMPTY = frozenset([""])
_MISSING = _EMPTY.union(NULLS)
_BOOLEANS = {"true": 1.0, "false": 0.0}
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True)
class Ids:
    """A column of ids as codes: indices into the sorted distinct ids.

    Attributes:
        codes: (rows,) int32.
        values: (distinct ids,) in ascending order, int64 or fixed-width unicode.
    """

    codes: NDArray[np.int32]
    values: NDArray[Any]


@dataclass(frozen=True)
class Interactions:
    """Interactions in the order of the files.

    Attributes:
        users: user per interaction.
        items: item per interaction.
        is_liked: (interactions,) bool, whether the rating is at least the threshold; None if the
            others were dropped.
        times: (interactions,) float64, finite; None if they were not asked for.
        rows_read: number of rows of the files.
        rows_missing: number of rows that were dropped because a value is missing.
        notes: sentences on what was assumed about the files.
        digests: digest of each file that is a pipe, by its path.
    """

    users: Ids
    items: Ids
    is_liked: NDArray[np.bool_] | None = None
    times: NDArray[np.float64] | None = None
    rows_read: int = 0
    rows_missing: int = 0
    notes: tuple[str, ...] = ()
    digests: Mapping[Path, Digest] = field(default_factory=dict)


def read_interactions(
    sources: Sequence[Source],
    columns: Columns,
    threshold: float,
    keep_all: bool = False,
    rating_is_optional: bool = False,
    advice: str = "",
    time_column: str | None = None,
    advance: Callable[[int], object] = lambda rows: None,
) -> Interactions:
    """Read the interactions of files.

    Ids become integers if all ids of a column, over all files, are plain integers without a plus
    sign or a leading zero.

    Args:
        sources: text, JSON lines or Parquet files.
        columns: columns to read, and the format of text files.
        threshold: least rating of an interaction.
        keep_all: whether rows with a lower rating are kept too; ``is_liked`` then tells them apart.
        rating_is_optional: whether the column of ratings may be absent, and all but that of users.
        advice: how to fix a file that lacks a column; empty: by the flags that name columns.
        time_column: column of times, see ``values.parse_time``; None to read none.
        advance: takes the number of rows of each block that is read.

    Returns:
        The interactions; those of files of users alone have no items.

    Raises:
        UserError: a file cannot be read or holds no rows, or a row of it has no id, no finite
            rating or no time.
    """
    optional = columns.rating if rating_is_optional else None
    names = columns.names if time_column is None else (*columns.names, time_column)
    lone = columns.user if rating_is_optional else None
    files = Tables(sources, columns, names, optional, advice, time_column, lone)
    users, items = _IdColumn(), _IdColumn()
    times = bytearray()  # of float64; grows in place, where NumPy's arrays would be copied
    liked: list[NDArray[np.bool_]] = []
    rows = missing = 0
    for block in prefetch(files.blocks()):
        is_present = _is_present(block, columns)
        rows += len(is_present)
        missing += int(np.count_nonzero(~is_present))
        is_liked = _is_liked(block, columns, is_present, threshold)
        keep_mask = is_present if keep_all else is_present & is_liked
        if keep_all:
            liked.append(is_liked[keep_mask])
        if time_column is not None:
            times += _times(block, time_column, is_present)[keep_mask].data
        users.add(block, columns.user, is_present, keep_mask)
        if columns.item in block.values:
            items.add(block, columns.item, is_present, keep_mask)
        advance(len(is_present))
    if not rows:
        raise UserError(f"{named([source.path for source in sources])}: no rows.")
    return Interactions(
        users.ids(),
        items.ids(),
        np.concatenate(liked) if keep_all else None,
        None if time_column is None else np.frombuffer(times, np.float64),
        rows,
        missing,
        (*files.notes, *users.notes(columns.user), *items.notes(columns.item)),
        files.digests,
    )


def read_items(sources: Sequence[Source], columns: Columns, advice: str) -> Interactions:
    """Read the items, or the users and items, of files.

    A file without a header row may have the column of items alone.

    Args:
        sources: as for ``read_interactions``; they may be without rows.
        columns: columns to read, of which users are optional, and the format of text files.
        advice: how to fix a file that lacks the column of items.

    Returns:
        The interactions; those of files without users have no users.

    Raises:
        UserError: a file cannot be read, a row of it lacks an id, or some rows have a user and
            others have not.
    """
    columns = replace(columns, rating=None)
    files = Tables(sources, columns, columns.names, columns.user, advice, lone=columns.item)
    users, items = _IdColumn(), _IdColumn()
    rows = missing = 0
    for block in prefetch(files.blocks()):
        is_present = _is_present(block, columns, needs_user=True)
        rows += len(is_present)
        missing += int(np.count_nonzero(~is_present))
        if columns.user in block.values:
            users.add(block, columns.user, is_present, is_present)
        items.add(block, columns.item, is_present, is_present)
    notes = (*files.notes, *users.notes(columns.user), *items.notes(columns.item))
    return Interactions(users.ids(), items.ids(), rows_read=rows, rows_missing=missing, notes=notes)


def lists_in(found: Interactions, columns: Columns, must_be_rare: bool) -> str:
    """Return a sentence on a column most ids of which look like lists; empty if there is none.

    Args:
        found: the interactions.
        columns: their columns.
        must_be_rare: whether ids that occur twice or more on average are no lists.
    """
    for name, ids in ((columns.user, found.users), (columns.item, found.items)):
        sample = ids.values[:_SAMPLED_IDS].tolist() if ids.values.dtype.kind == "U" else []
        lists = list(filter(_is_list, sample))
        are_rare = 2 * len(ids.values) > len(ids.codes)
        if 2 * len(lists) > len(sample) and (are_rare or not must_be_rare):
            example = one_line(lists[0])
            return f"column {name!r} seems to have lists, such as {example!r}; {ONE_ROW_EACH}."
    return ""


class _IdColumn:
    """A column of ids that grows block by block."""

    def __init__(self) -> None:
        # A new id gets the next code.
        self._code_of: dict[str, int] = defaultdict(itertools.count().__next__)
        # Of int32; grows in place, where NumPy's arrays would be copied.
        self._codes = bytearray()
        self._invisible_ends = 0
        self._invisible_example = ""

    def add(
        self,
        block: Block,
        name: str,
        is_present: NDArray[np.bool_],
        keep_mask: NDArray[np.bool_],
    ) -> None:
        """Append the rows of a block where the mask is set.

        The ids of all rows that are present decide whether the ids of the column are integers.

        Raises:
            UserError: an id is too long, or holds a NUL character.
        """
        codes, texts = block.values[name]
        used = np.ones(len(texts), bool)
        if not is_present.all():
            used[:] = False
            used[codes[is_present]] = True
        distinct = texts[used].tolist()
        before = len(self._code_of)
        known = np.zeros(len(texts), np.int32)
        known[used] = np.fromiter(map(self._code_of.__getitem__, distinct), np.int32, len(distinct))
        for code in np.flatnonzero(used & (known >= before)).tolist():
            text = texts[code]
            _check_id(block, name, text)
            if _has_invisible_end(text):
                self._invisible_ends += 1
                self._invisible_example = self._invisible_example or text
        self._codes += known[codes[keep_mask]].data

    def notes(self, name: str) -> list[str]:
        """Return a sentence on ids of the column ``name`` that look like others, if there are."""
        if not self._invisible_ends:
            return []
        return [
            f"{self._invisible_ends:,} ids of column {name!r} begin or end with an invisible "
            f"character, such as {self._invisible_example!r}; remove it if they are to be the ids "
            "without it."
        ]

    def ids(self) -> Ids:
        """Return the column, to which nothing can be added afterwards."""
        values = _values(list(self._code_of))
        self._code_of.clear()
        codes = np.frombuffer(self._codes, np.int32)
        # In parts, because NumPy converts indices to 64 bits.
        parts = np.array_split(codes, len(codes) // _PART + 1)
        used = np.zeros(len(values), bool)
        for part in parts:
            used[part] = True
        order = np.argsort(values)
        order = order[used[order]]
        rank = np.empty(len(values), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        for part in parts:
            part[:] = rank[part]
        return Ids(codes, values[order])


def _values(texts: list[str]) -> NDArray[Any]:
    """Return distinct ids as int64 if that loses nothing, else as fixed-width unicode."""
    if all(map(_INTEGER.fullmatch, texts)):
        try:
            return np.array([int(text) for text in texts], np.int64)
        except OverflowError:
            pass
    return np.array(texts, np.str_)


def _is_present(block: Block, columns: Columns, needs_user: bool = False) -> NDArray[np.bool_]:
    """Return (rows,) bool, whether a row has both ids and a value in each other column.

    Args:
        block: the rows.
        columns: how to tell and treat missing values.
        needs_user: whether a row without a user is refused and never dropped.

    Raises:
        UserError: a row has not, and rows with missing values are not to be dropped.
    """
    present: NDArray[np.bool_] | None = None
    for name, (codes, texts) in block.values.items():
        is_id = name in (columns.user, columns.item)
        nulls = _EMPTY if is_id and columns.keep_null_ids else _MISSING
        is_missing = codes < 0
        distinct = texts.tolist() if texts.dtype == object else []
        if not nulls.isdisjoint(map(str.lower, map(str.strip, distinct))):
            is_null = np.array([text.strip().lower() in nulls for text in distinct])
            is_missing |= is_null[codes] & ~is_missing
        needs_value = needs_user and name == columns.user
        if is_missing.any() and (needs_value or not columns.drop_missing):
            raise _missing(block, name, int(np.argmax(is_missing)), is_id, needs_value)
        present = ~is_missing if present is None else present & ~is_missing
    assert present is not None
    return present


def _is_liked(
    block: Block, columns: Columns, is_present: NDArray[np.bool_], threshold: float
) -> NDArray[np.bool_]:
    """Return (rows,) bool, whether the rating is at least the threshold, or there is none.

    Raises:
        UserError: a rating is not a finite number.
    """
    name = columns.rating
    if name is None or name not in block.values:
        return np.ones(len(is_present), bool)
    codes, texts = block.values[name]
    ratings = texts
    if texts.dtype == object:
        ratings = np.array([_number(text, columns.decimal) for text in texts])
    is_wrong = ~np.isfinite(ratings)
    if is_wrong.any():
        rows = np.flatnonzero(is_present)
        wrong = rows[is_wrong[codes[rows]]]
        if len(wrong):
            raise _wrong_rating(block, name, int(wrong[0]))
    # In the precision of the column, in which 4.1 is at least 4.1.
    is_liked: NDArray[np.bool_] = (ratings >= ratings.dtype.type(threshold))[codes]
    return is_liked


def _times(block: Block, name: str, is_present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (rows,) float64, the time of each row that is present.

    Raises:
        UserError: a value is neither a finite number nor a date.
    """
    codes, texts = block.values[name]
    values = _parse_times(texts) if texts.dtype == object else texts
    is_wrong = ~np.isfinite(values)
    if is_wrong.any():
        rows = np.flatnonzero(is_present)
        wrong = rows[is_wrong[codes[rows]]]
        if len(wrong):
            position = int(wrong[0])
            raise UserError(
                f"{_where(block, name, position)}: {one_line(texts[codes[position]])!r} is neither "
                "a number nor a date such as 2020-12-31 or 2020-12-31T23:59:59; convert it."
            )
    if not len(values):  # no row has a time
        return np.zeros(len(codes))
    times: NDArray[np.float64] = values.astype(np.float64)[codes]
    return times


def _parse_times(texts: NDArray[Any]) -> NDArray[np.float64]:
    """Return what ``parse_time`` returns for each text; numbers alone in a fraction of the time."""
    try:
        numbers: NDArray[np.float64] = pa.array(texts, pa.string()).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return np.array([parse_time(text) for text in texts.tolist()], np.float64)
    return numbers


def _number(text: str, decimal: str) -> float:
    """Return the rating that a text stands for; NaN if it is none."""
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if decimal != ".":
        text = text.replace(decimal, ".")
    return float(text) if NUMBER.fullmatch(text) else math.nan


def _has_invisible_end(text: str) -> bool:
    ends = text[:1] + text[-1:]
    return not ends.isprintable() or " " in ends


def _is_list(text: str) -> bool:
    """Return whether a text looks like several ids: words with digits, or three and more texts."""
    texts, words = ([part for part in re.split(p, text) if part] for p in ("[,;|]", r"[,;|\s]+"))
    return len(texts) > 2 or (len(words) > 1 and all(re.search("[0-9]", word) for word in words))


def _check_id(block: Block, name: str, text: str) -> None:
    """Refuse ids that are too long, or that NumPy cannot tell apart."""
    if len(text) > MAX_ID_LENGTH:
        fix = ONE_ROW_EACH if _is_list(text) else "look for an unclosed quote or shorten the ids"
        problem = f"an id has {len(text)} characters, more than {MAX_ID_LENGTH}; {fix}"
    elif "\0" in text:  # NumPy drops it from the end of a string, which could merge two ids
        problem = "an id contains a NUL character; remove it"
    elif "\ufeff" in text:
        problem = "an id contains a byte-order mark; remove it"
    else:
        return
    codes, texts = block.values[name]
    position = int(np.argmax(texts[codes] == text))
    raise UserError(f"{_where(block, name, position)}: {problem}.")


def _missing(block: Block, name: str, position: int, is_id: bool, needs_value: bool) -> UserError:
    codes, texts = block.values[name]
    text = str(texts[codes[position]]) if codes[position] >= 0 else ""
    problem, fix = "the value is missing", "fill it in, remove the row, or prepare the data with "
    fix = f"{fix}--drop_missing"
    if needs_value:
        fix = "a list has a user in every row or in none; fill it in or remove the row"
    if is_id and text.strip():
        problem = f"{text!r} stands for a missing value"
        fix = f"{fix}, or with --keep_null_ids if it is an id"
    return UserError(f"{_where(block, name, position)}: {problem}; {fix}.")


def _wrong_rating(block: Block, name: str, position: int) -> UserError:
    codes, texts = block.values[name]
    text = texts[codes[position]]
    where = _where(block, name, position)
    if texts.dtype != object or NUMBER.fullmatch(text):
        return UserError(f"{where}: the rating is not finite.")
    is_decimal_comma = re.fullmatch(r"-?[0-9]+,[0-9]+", text)
    fix = " (for a decimal comma prepare the data with --decimal ,)" if is_decimal_comma else ""
    return UserError(f"{where}: {one_line(text)!r} is not a number{fix}.")


def _where(block: Block, name: str, position: int) -> str:
    return f"{block.path}: column {name!r}, row {block.first_row + position}"
