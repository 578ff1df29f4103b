"""Reading ratings: two columns of ids, and one of ratings if there is one.

Files are read block by block. What stays in memory of a row that counts is its two codes, 8 bytes,
and of an id its text, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae.errors import UserError
from vae.load.batches import prefetch
from vae.load.blocks import ID, Block, kept
from vae.load.columns import Columns
from vae.load.sources import read_blocks

_PART = 1 << 20
_MIN_MERGED = 1 << 20


@dataclass(frozen=True)
class Ids:
    """A column of ids as numbers that index the sorted distinct ids.

    Attributes:
        codes: (rows,) int32.
        values: distinct ids in ascending order, int64 or fixed-width unicode.
    """

    codes: NDArray[np.int32]
    values: NDArray[Any]


@dataclass(frozen=True)
class Ratings:
    """The rows of ratings files that count, in the files' order.

    Attributes:
        users: ids of the users.
        items: ids of the items.
        rows_read: rows of the files, those below the threshold included.
        line_breaks: inside quoted values of the files.
    """

    users: Ids
    items: Ids
    rows_read: int
    line_breaks: int = 0


def read_ratings(files: Sequence[Path], columns: Columns, threshold: float) -> Ratings:
    """Reads text and Parquet files one after another, in bounded memory.

    Ids become integers if all of a column, over all files, are plain ones, without plus sign or
    leading zero.

    Args:
        files: text in UTF-8 with a header row, compressed by gzip, bzip2 or zstd too, or Parquet.
        columns: the columns to read.
        threshold: rows with a lower rating are dropped.

    Raises:
        UserError: a file cannot be read or holds no rows, or a row of it has no id or no finite
            rating.
    """
    # Arrow's default allocator keeps what it was given, and reserves addresses by the gigabyte.
    pa.set_memory_pool(pa.system_memory_pool())
    users, items = _Column(), _Column()
    rows = line_breaks = 0
    for block in prefetch(_blocks(files, columns)):
        chosen = kept(block, columns, threshold)
        users.add(block.users, chosen)
        items.add(block.items, chosen)
        rows += len(block.users)
        line_breaks += block.line_breaks
    if not rows:
        raise UserError(f"{_named(files)}: no rows.")
    return Ratings(users.ids(), items.ids(), rows, line_breaks)


class _Column:
    """A column of ids that grows by blocks."""

    def __init__(self) -> None:
        self._distinct = pa.array([], ID.value_type)
        # Of int32; grows in place, where NumPy's arrays would be copied.
        self._codes = bytearray()
        self._waiting: list[pa.DictionaryArray] = []
        self._waiting_rows = 0

    def add(self, ids: pa.DictionaryArray, chosen: pa.BooleanArray | None) -> None:
        """Appends the chosen rows of a block."""
        self._waiting.append(ids if chosen is None else ids.filter(chosen))
        self._waiting_rows += len(self._waiting[-1])
        # Merging goes through all distinct ids: it waits until there are as many new rows.
        if self._waiting_rows >= max(_MIN_MERGED, len(self._distinct)):
            self._merge()

    def ids(self) -> Ids:
        """The column; nothing can be added to it afterwards."""
        self._merge()
        values = _values(self._distinct)
        codes = np.frombuffer(self._codes, np.int32)
        # In parts, for NumPy makes 64-bit numbers of indices.
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

    def _merge(self) -> None:
        """Gives the waiting rows codes; distinct ids keep the places they have."""
        known = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), self._distinct)
        chunks = pa.chunked_array([known, *self._waiting], ID).unify_dictionaries().chunks
        self._distinct = chunks[0].dictionary
        for chunk in chunks[1:]:
            self._codes += memoryview(chunk.indices.to_numpy())
        self._waiting, self._waiting_rows = [], 0


def _blocks(files: Sequence[Path], columns: Columns) -> Iterator[Block]:
    for path in files:
        yield from read_blocks(path, columns)


def _values(distinct: pa.Array) -> NDArray[Any]:
    """Distinct ids as int64 where that loses nothing, as fixed-width unicode elsewhere."""
    try:
        integers = distinct.cast(pa.int64())
        if integers.cast(distinct.type).equals(distinct):
            return np.asarray(integers)
    except pa.ArrowInvalid:
        pass
    values = np.empty(len(distinct), f"U{pc.max(pc.utf8_length(distinct))}")
    for start in range(0, len(values), _PART):
        values[start : start + _PART] = distinct[start : start + _PART].to_pylist()
    return values


def _named(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
