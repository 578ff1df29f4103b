"""Interactions of users with items, from ratings files of any kind.

Memory holds two codes of 4 bytes per interaction, and the text of each distinct id once.

Raises:
    UserError: a file cannot be read or holds no rows, or a row of it has no id, no finite rating or
        no time.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae.errors import UserError, one_line
from vae.load.config import NUMBER, Columns, parse_time
from vae.load.reading.files import Source, reading
from vae.load.reading.header import Wanted
from vae.load.reading.tables import BLOCK_ROWS, Block, Tables, named
from vae.load.reading.text import ONE_ROW_EACH
from vae.load.rejects import MAX_REJECTS, Reject
from vae.utils.threads import prefetch

MAX_ID_LENGTH = 256
"""Characters; ids are stored at a fixed width, so a single huge one would take gigabytes."""

NULLS = ("null", "(null)", "\\n", "nan", "nat", "none", "na", "n/a", "<na>", "#n/a")
"""Texts that programs write for a missing value, in lower case."""

_EMPTY = frozenset([""])
_MISSING = _EMPTY.union(NULLS)
_BOOLEANS = {"true": "1", "false": "0"}
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_SAMPLED_IDS = 1000
_PART = 1 << 20


@dataclass(frozen=True)
class CodedIds:
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
        users: user per interaction; empty if the files have items alone.
        items: item per interaction; empty if the files have users alone.
        is_liked: (interactions,) bool, whether the rating is at least the threshold; None if the
            others were dropped.
        times: (interactions,) float64, finite; None if they were not asked for.
        rows_missing: number of rows that were dropped because a value is missing.
        notes: sentences on what was assumed about the files.
        counts: number of interactions of each file.
        rejects: the first rows that were dropped because a value is missing.
    """

    users: CodedIds
    items: CodedIds
    is_liked: NDArray[np.bool_] | None = None
    times: NDArray[np.float64] | None = None
    rows_read: int = 0
    rows_missing: int = 0
    notes: tuple[str, ...] = ()
    counts: Mapping[Path, int] = field(default_factory=dict)
    rejects: Sequence[Reject] = ()


def read_interactions(
    sources: Sequence[Source],
    columns: Columns,
    threshold: float = -math.inf,
    keep_all: bool = False,
    optional: str | None = None,
    allow_single_column: str | None = None,
    advice: str = "",
    time_column: str | None = None,
    advance: Callable[[int], object] = lambda rows: None,
    block_rows: int = BLOCK_ROWS,
) -> Interactions:
    """Read the interactions of files.

    Ids become integers if all ids of a column, over all files, are plain integers without a plus
    sign or a leading zero.

    Args:
        sources: text, JSON lines or Parquet files.
        columns: columns to read, and the format of text files.
        threshold: least rating of an interaction.
        keep_all: whether rows with a lower rating are kept too; ``is_liked`` then tells them apart.
        optional: column of ratings or users that the files may lack, all of them. If it is that of
            users, the files may be without rows, and no row without a user is dropped.
        allow_single_column: column that the files may consist of; None if there is none.
        advice: how to fix a file that lacks a column; empty: by the flags that name columns.
        time_column: column of times, see ``parse_time``; None to read none.
        advance: takes the number of rows of each block that is read.
        block_rows: number of rows of a block, approximately.
    """
    names = columns.names if time_column is None else (*columns.names, time_column)
    never_dropped = optional if optional == columns.user else None
    wanted = Wanted(columns, names, optional, advice, time_column, allow_single_column)
    tables = Tables(sources, wanted, block_rows)
    users, items = CodedIdsBuilder(columns.user), CodedIdsBuilder(columns.item)
    times, liked = bytearray(), bytearray()  # grow in place, where NumPy's arrays would be copied
    given = [one for one in sources if one.table is None] or sources
    paths = {one.path for one in given}
    rows = rows_given = missing = 0
    counts: dict[Path, int] = {}
    rejects: list[Reject] = []
    blocks = tables.blocks()
    if given[0].table is None:
        blocks = prefetch(blocks)
    with closing(blocks):
        for block in blocks:
            rows += len(block)
            rows_given += len(block) if block.path in paths else 0
            with reading(block.path):
                is_present = _is_present(block, columns, never_dropped, rejects)
                is_liked = np.ones(len(block), bool)
                if columns.rating is not None and columns.rating in block.columns:
                    ratings = _numbers(block, columns.rating, is_present, columns.decimal)
                    # In the precision of the column, in which 4.1 is at least 4.1.
                    is_liked = ratings >= ratings.dtype.type(threshold)
                keep_mask = is_present if keep_all else is_present & is_liked
                if time_column is not None:
                    values = _numbers(block, time_column, is_present)
                    times += values.astype(np.float64)[keep_mask].data
                for ids in (users, items):
                    ids.add(block, is_present, keep_mask)
            missing += int(np.count_nonzero(~is_present))
            counts[block.path] = counts.get(block.path, 0) + int(np.count_nonzero(keep_mask))
            liked += is_liked[keep_mask].data if keep_all else b""
            advance(len(block))
    if not rows_given and never_dropped is None:
        lists = "no row is a user and items, as --format lists of these data needs"
        problem = lists if columns.lists else "no rows"
        raise UserError(f"{named([source.path for source in given])}: {problem}.")
    return Interactions(
        users.ids(),
        items.ids(),
        np.frombuffer(liked, bool) if keep_all else None,
        None if time_column is None else np.frombuffer(times, np.float64),
        rows,
        missing,
        (*tables.notes, *users.notes, *items.notes),
        counts,
        rejects,
    )


def lists_in(interactions: Interactions, columns: Columns, must_be_rare: bool) -> str:
    """Return a sentence on a column most ids of which look like lists; empty if there is none.

    With ``must_be_rare``, ids that occur twice or more on average are no lists.
    """
    for name, ids in ((columns.user, interactions.users), (columns.item, interactions.items)):
        sample = ids.values[:_SAMPLED_IDS].tolist() if ids.values.dtype.kind == "U" else []
        lists = list(filter(_is_list, sample))
        are_rare = 2 * len(ids.values) > len(ids.codes)
        if 2 * len(lists) > len(sample) and (are_rare or not must_be_rare):
            example = one_line(lists[0])
            return f"column {name!r} seems to have lists, such as {example!r}; {ONE_ROW_EACH}."
    return ""


class CodedIdsBuilder:
    """A column of ids that grows block by block."""

    def __init__(self, name: str) -> None:
        self._name = name
        # A new id gets the next code.
        self._code_of: dict[str, int] = defaultdict(itertools.count().__next__)
        self._codes = bytearray()  # of int32; grows in place
        self._invisible_ends: list[str] = []

    def add(
        self, block: Block, is_present: NDArray[np.bool_], keep_mask: NDArray[np.bool_]
    ) -> None:
        """Append the ids of the rows where the mask is set, if the block has the column.

        The ids of all rows that are present decide whether the ids of the column are integers.
        """
        if self._name not in block.columns:
            return
        codes, texts = block.columns[self._name]
        used = np.zeros(len(texts), bool)
        used[codes[is_present]] = True
        before = len(self._code_of)
        distinct = texts[used].tolist()
        known = np.zeros(len(texts), np.int32)
        known[used] = np.fromiter(map(self._code_of.__getitem__, distinct), np.int32, len(distinct))
        for code in np.flatnonzero(used & (known >= before)):
            text = texts[code]
            if problem := _problem_of_id(text):
                position = int(np.argmax(codes == code))
                raise block.error(self._name, position, problem, block.text(position))
            ends = text[:1] + text[-1:]
            if not ends.isprintable() or " " in ends:
                self._invisible_ends.append(text)
        self._codes += known[codes[keep_mask]].data

    @property
    def notes(self) -> list[str]:
        """Sentences on ids that look like others."""
        if not (ends := self._invisible_ends):
            return []
        return [
            f"{len(ends):,} ids of column {self._name!r} begin or end with an invisible character, "
            f"such as {ends[0]!r}; remove it if they are to be the ids without it."
        ]

    def ids(self) -> CodedIds:
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
        return CodedIds(codes, values[order])


def _values(texts: list[str]) -> NDArray[Any]:
    """Return distinct ids as int64 if that loses nothing, else as fixed-width unicode."""
    if all(map(_INTEGER.fullmatch, texts)):
        with suppress(OverflowError):
            return np.array([int(text) for text in texts], np.int64)
    return np.array(texts, np.str_)


def _problem_of_id(text: str) -> str:
    """Return what is wrong with an id that is too long, or that NumPy cannot tell apart."""
    if len(text) > MAX_ID_LENGTH:
        fix = ONE_ROW_EACH if _is_list(text) else "look for an unclosed quote or shorten the ids"
        return f"an id has {len(text)} characters, more than {MAX_ID_LENGTH}; {fix}"
    if "\0" in text:  # NumPy drops it from the end of a string, which could merge two ids
        return (
            "an id contains a NUL character; prepare the data with --encoding, e.g. utf-16-le, or "
            "remove the character"
        )
    return "an id contains a byte-order mark; remove it" if "\ufeff" in text else ""


def _is_list(text: str) -> bool:
    """Return whether a text looks like several ids: words with digits, or three and more texts."""
    texts, words = ([part for part in re.split(p, text) if part] for p in ("[,;|]", r"[,;|\s]+"))
    return len(texts) > 2 or (len(words) > 1 and all(re.search("[0-9]", word) for word in words))


def _is_present(
    block: Block, columns: Columns, never_dropped: str | None, rejects: list[Reject]
) -> NDArray[np.bool_]:
    """Return (rows,) bool, whether a row has a value in each column.

    In the column ``never_dropped``, a missing value is refused in any case. Rows that are dropped
    are added to the rejects, in their order.
    """
    is_present = np.ones(len(block), bool)
    before, limit = len(rejects), MAX_REJECTS - len(rejects)
    for name, (codes, values) in block.columns.items():
        is_id = name in (columns.user, columns.item)
        nulls = _EMPTY if is_id and columns.keep_null_ids else _MISSING
        is_missing = codes < 0
        texts = values.tolist() if values.dtype == object else []
        if not nulls.isdisjoint(map(str.lower, map(str.strip, texts))):
            is_missing |= np.array([text.strip().lower() in nulls for text in texts])[codes]
        is_refused = name == never_dropped or not columns.drop_missing
        positions = np.flatnonzero(is_missing if is_refused else is_missing & is_present)
        for position in positions[: limit + is_refused].tolist():
            text = str(block.value(name, position))
            problem, fix = "the value is missing", "prepare the data with --drop_missing"
            if is_id and text.strip():
                problem = f"{text!r} stands for a missing value"
                fix += ", or with --keep_null_ids if it is an id"
            fix = f"fill it in, remove the row, or {fix}"
            if name == never_dropped:
                fix = "a list has a user in every row or in none; fill it in or remove the row"
            if is_refused:
                raise block.error(name, position, f"{problem}; {fix}", block.text(position))
            row = block.rows[position]
            rejects.append(Reject(block.path, row, name, block.text(position), problem))
        is_present &= ~is_missing
    rejects[before:] = sorted(rejects[before:], key=attrgetter("row"))[:limit]
    return is_present


def _numbers(
    block: Block, name: str, is_present: NDArray[np.bool_], decimal: str | None = None
) -> NDArray[Any]:
    """Return (rows,) ratings or, without ``decimal``, times: finite where a row is present."""
    codes, values = block.columns[name]
    if values.dtype == object:
        try:  # numbers alone, in a fraction of the time
            values = pa.array(values, pa.string()).cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            numbers = (_parse_rating(t, decimal) if decimal else parse_time(t) for t in values)
            values = np.fromiter(numbers, np.float64, len(values))
    # A code of -1 is that of the last one.
    rows: NDArray[Any] = np.append(values, values.dtype.type(math.nan))[codes]
    is_wrong = is_present & ~np.isfinite(rows)
    if is_wrong.any():
        position = int(np.argmax(is_wrong))
        text = one_line(block.value(name, position))
        problem = f"{text!r} is not a number"
        if not decimal:
            problem = (
                f"{text!r} is neither a number nor a date such as 2020-12-31 or "
                "2020-12-31T23:59:59; convert it"
            )
        elif NUMBER.fullmatch(text):
            problem = "the rating is not finite"
        elif re.fullmatch(r"-?[0-9]+,[0-9]+", text):
            problem += " (for a decimal comma prepare the data with --decimal ,)"
        raise block.error(name, position, problem, block.text(position))
    return rows


def _parse_rating(text: str, decimal: str) -> float:
    """Return the rating that a text stands for; NaN if it is none."""
    text = _BOOLEANS.get(text.lower(), text).replace(decimal, ".")
    return float(text) if NUMBER.fullmatch(text) else math.nan
