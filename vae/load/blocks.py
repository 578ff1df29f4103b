"""Blocks of rows of a ratings file of any format, and the errors of ratings files.

Rows are numbered as an editor shows them: row 1 of a text file is its header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vae.errors import UserError, one_line
from vae.load.columns import Columns

MAX_ID_LENGTH = 256
"""Characters; ids are stored at a fixed width, so a single huge one would take gigabytes."""

ID = pa.dictionary(pa.int32(), pa.large_string())
"""Type of the ids of a block: their text, each distinct id once."""

_MAX_NAMED = 20


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a ratings file.

    Attributes:
        path: ratings file.
        first_row: number of the first row.
        users: (rows,) of type ``ID``.
        items: (rows,) of type ``ID``.
        ratings: (rows,) floating-point numbers, None if every row is an interaction.
        line_breaks: number of line breaks inside quoted values of the whole file, in its first
            block; 0 in the others.
    """

    path: Path
    first_row: int
    users: pa.DictionaryArray
    items: pa.DictionaryArray
    ratings: pa.Array | None
    line_breaks: int = 0


def keep_mask(block: Block, columns: Columns, threshold: float) -> pa.BooleanArray | None:
    """Return (rows,) bool, whether the rating is at least the threshold; None for all rows.

    Raises:
        UserError: a row has no usable id or no finite rating.
    """
    _check_ids(block, columns.user, block.users)
    _check_ids(block, columns.item, block.items)
    if columns.rating is None or block.ratings is None:
        return None
    ratings = block.ratings
    missing = pc.index(pc.is_null(ratings, nan_is_null=True), True).as_py()
    if missing >= 0:
        raise _missing(block, columns.rating, missing)
    infinite = pc.index(pc.is_finite(ratings), False).as_py()
    if infinite >= 0:
        raise UserError(f"{_where(block, columns.rating, infinite)}: the rating is not finite.")
    # In the precision of the column, in which 4.1 is at least 4.1.
    return pc.greater_equal(ratings, pa.scalar(threshold, ratings.type))


def check_names(path: Path, found: Sequence[str], columns: Columns, fix: str = "") -> None:
    """Check that every required column exists exactly once.

    Args:
        path: ratings file.
        found: names of its columns.
        columns: required columns.
        fix: end of the message, instead of the advice to name other columns.

    Raises:
        UserError: a column is missing or exists twice.
    """
    for name in columns.names:
        if found.count(name) > 1:
            raise UserError(
                f"{path}: has {found.count(name)} columns named {name!r}; rename all but one."
            )
        if name not in found:
            named = ", ".join(repr(other[:100]) for other in found[:_MAX_NAMED])
            more = ", ..." if len(found) > _MAX_NAMED else ""
            fix = fix or "name the columns with --user_col, --item_col and --rating_col"
            raise UserError(f"{path}: has no column {name!r} but {named}{more}; {fix}.")


def not_utf8(path: Path, where: str) -> UserError:
    """Return the error for text in another encoding."""
    return UserError(f"{path}: {where}: is not valid UTF-8; convert the file to UTF-8.")


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error for a file that the operating system does not read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: file not found.")
    return UserError(f"{path}: cannot be read ({one_line(error)}).")


def _check_ids(block: Block, name: str, ids: pa.DictionaryArray) -> None:
    """Refuse ids that are missing, too long, or that NumPy cannot tell apart."""
    if ids.null_count:
        raise _missing(block, name, pc.index(ids.is_null(), True).as_py())
    empty = pc.index(ids.dictionary, "").as_py()
    if empty >= 0:
        raise _missing(block, name, _first(ids, empty))
    lengths = pc.utf8_length(ids.dictionary)
    too_long = pc.index(pc.greater(lengths, MAX_ID_LENGTH), True).as_py()
    if too_long >= 0:
        raise UserError(
            f"{_where(block, name, _first(ids, too_long))}: an id has {lengths[too_long]} "
            f"characters, more than {MAX_ID_LENGTH}; look for an unclosed quote or "
            "shorten the ids."
        )
    # NumPy drops NUL characters from the end of a string, which could merge two ids.
    nul = pc.index(pc.match_substring(ids.dictionary, "\0"), True).as_py()
    if nul >= 0:
        raise UserError(
            f"{_where(block, name, _first(ids, nul))}: an id contains a NUL character; remove it."
        )


def _first(ids: pa.DictionaryArray, code: int) -> int:
    """Return the position in the block where a distinct id occurs first."""
    return int(pc.index(ids.indices, code).as_py())


def _missing(block: Block, name: str, position: int) -> UserError:
    return UserError(
        f"{_where(block, name, position)}: the value is missing; fill it in or remove the row."
    )


def _where(block: Block, name: str, position: int) -> str:
    return f"{block.path}: column {name!r}, row {block.first_row + position}"
