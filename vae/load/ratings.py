"""Interactions read from ratings files: a column of user ids, one of item ids, one of ratings.

Files are read block by block. Memory holds two codes of 4 bytes per interaction, and the text of
each distinct id once.
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
from vae.load.blocks import ID, Block, keep_mask
from vae.load.columns import Columns
from vae.load.sources import read_blocks

_PART = 1 << 20
_MIN_MERGED = 1 << 20


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
class Ratings:
    """Interactions: the rows with a sufficient rating, in the order of the files.

    Attributes:
        users: user per interaction.
        items: item per interaction.
        rows_read: number of rows of the files, those below the threshold included.
        line_breaks: number of line breaks inside quoted values of the files.
    """

    users: Ids
    items: Ids
    rows_read: int
    line_breaks: int = 0


def read_ratings(files: Sequence[Path], columns: Columns, threshold: float) -> Ratings:
    """Read the interactions of text and Parquet files.

    Ids become integers if all ids of a column, over all files, are plain integers without a plus
    sign or a leading zero.

    Args:
        files: UTF-8 text with a header row, optionally compressed with gzip, bzip2 or zstd; or
            Parquet.
        columns: columns to read.
        threshold: rows with a lower rating are dropped.

    Raises:
        UserError: a file cannot be read or holds no rows, or a row of it has no id or no finite
            rating.
    """
    # Arrow's default allocator keeps freed memory and reserves addresses by the gigabyte.
    pa.set_memory_pool(pa.system_memory_pool())
    users, items = _Column(), _Column()
    rows = line_breaks = 0
    for block in prefetch(_blocks(files, columns)):
        mask = keep_mask(block, columns, threshold)
        users.add(block.users, mask)
        items.add(block.items, mask)
        rows += len(block.users)
        line_breaks += block.line_breaks
    if not rows:
        raise UserError(f"{_named(files)}: no rows.")
    return Ratings(users.ids(), items.ids(), rows, line_breaks)


class _Column:
    """A column of ids that grows block by block."""

    def __init__(self) -> None:
        self._distinct = pa.array([], ID.value_type)
        # Of int32; grows in place, where NumPy's arrays would be copied.
        self._codes = bytearray()
        self._waiting: list[pa.DictionaryArray] = []
        self._waiting_rows = 0

    def add(self, ids: pa.DictionaryArray, mask: pa.BooleanArray | None) -> None:
        """Append the rows of a block where the mask is set; all rows without a mask."""
        self._waiting.append(ids if mask is None else ids.filter(mask))
        self._waiting_rows += len(self._waiting[-1])
        # Merging scans all distinct ids: it waits until there are as many new rows.
        if self._waiting_rows >= max(_MIN_MERGED, len(self._distinct)):
            self._merge()

    def ids(self) -> Ids:
        """Return the column, to which nothing can be added afterwards."""
        self._merge()
        values = _values(self._distinct)
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

    def _merge(self) -> None:
        """Assign codes to the waiting rows; existing codes do not change."""
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
    """Return distinct ids as int64 if that loses nothing, else as fixed-width unicode."""
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
