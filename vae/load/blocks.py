"""A block of rows of a ratings file of any format, and what may be wrong with it or with its file.

Rows are counted as a person does who looks at the file: the first row of a text file is its header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vae.errors import UserError
from vae.load.columns import Columns

MAX_ID_LENGTH = 256
"""Characters; ids are stored at a fixed width, so that a single giant one would cost gigabytes."""

ID = pa.dictionary(pa.int32(), pa.large_string())
"""How a block holds ids: as they are written, each distinct one once."""

_MAX_NAMED = 20


@dataclass(frozen=True)
class Block:
    """Some rows of a ratings file, one after another.

    Attributes:
        path: of the file.
        first_row: number of the first of them.
        users: (rows,) of type ``ID``.
        items: (rows,) of type ``ID``.
        ratings: (rows,) floating-point numbers, None where every row counts.
        line_breaks: inside quoted values; those of the whole file are told in its first block.
    """

    path: Path
    first_row: int
    users: pa.DictionaryArray
    items: pa.DictionaryArray
    ratings: pa.Array | None
    line_breaks: int = 0


def kept(block: Block, columns: Columns, threshold: float) -> pa.BooleanArray | None:
    """(rows,) which of them have a high enough rating, None for all of them.

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
        raise UserError(f"{_place(block, columns.rating, infinite)}: the rating is not finite.")
    # In the column's own precision, in which 4.1 is at least 4.1.
    return pc.greater_equal(ratings, pa.scalar(threshold, ratings.type))


def check_names(path: Path, found: Sequence[str], columns: Columns, advice: str = "") -> None:
    """Every wanted column is there, once.

    Args:
        path: of the file.
        found: names of its columns.
        columns: the wanted ones.
        advice: what else to do than to name other columns.

    Raises:
        UserError: one is not.
    """
    for name in columns.names:
        if found.count(name) > 1:
            raise UserError(
                f"{path}: has {found.count(name)} columns named {name!r}; rename all but one."
            )
        if name not in found:
            named = ", ".join(repr(other[:100]) for other in found[:_MAX_NAMED])
            more = ", ..." if len(found) > _MAX_NAMED else ""
            advice = advice or "name the columns with --user_col, --item_col and --rating_col"
            raise UserError(f"{path}: has no column {name!r} but {named}{more}; {advice}.")


def not_utf8(path: Path, where: str) -> UserError:
    """The error of text in another encoding."""
    return UserError(f"{path}: {where}: is not valid UTF-8; convert the file to UTF-8.")


def unreadable(path: Path, error: OSError) -> UserError:
    """The error of a file that the system does not read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: there is no such file; give the right path.")
    return UserError(f"{path}: cannot be read ({short(str(error))}).")


def short(text: str) -> str:
    """Text from a file or a library on one line of at most 100 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"


def _check_ids(block: Block, name: str, ids: pa.DictionaryArray) -> None:
    """No id is missing, too long, or alike another one to NumPy."""
    if ids.null_count:
        raise _missing(block, name, pc.index(ids.is_null(), True).as_py())
    empty = pc.index(ids.dictionary, "").as_py()
    if empty >= 0:
        raise _missing(block, name, _first(ids, empty))
    lengths = pc.utf8_length(ids.dictionary)
    giant = pc.index(pc.greater(lengths, MAX_ID_LENGTH), True).as_py()
    if giant >= 0:
        raise UserError(
            f"{_place(block, name, _first(ids, giant))}: an id has {lengths[giant]} characters, "
            f"more than {MAX_ID_LENGTH}; look for an unclosed quote, or give shorter ids."
        )
    # NumPy drops NUL characters from the end of a string, and so might make two ids one.
    nul = pc.index(pc.match_substring(ids.dictionary, "\0"), True).as_py()
    if nul >= 0:
        raise UserError(
            f"{_place(block, name, _first(ids, nul))}: an id holds a NUL character; remove it."
        )


def _first(ids: pa.DictionaryArray, code: int) -> int:
    """Where a distinct id occurs first."""
    return int(pc.index(ids.indices, code).as_py())


def _missing(block: Block, name: str, place: int) -> UserError:
    return UserError(
        f"{_place(block, name, place)}: the value is missing; fill it in or remove the row."
    )


def _place(block: Block, name: str, place: int) -> str:
    return f"{block.path}: column {name!r}, row {block.first_row + place}"
