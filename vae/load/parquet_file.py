"""Ratings in a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vae.errors import UserError
from vae.load.blocks import ID, Block, check_names, not_utf8, short, unreadable
from vae.load.columns import Columns

_MAGIC = b"PAR1"
_DAMAGE = (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError)
_BLOCK_ROWS = 1 << 17
_FIRST_ROW = 1


def is_parquet(path: Path) -> bool:
    """Whether a file is one by its ending or by its first and last bytes."""
    if path.suffix == ".parquet":
        return True
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
            file.seek(-min(len(_MAGIC), len(start)), 2)
            return start == file.read() == _MAGIC
    except OSError:  # for the reader to explain
        return False


def parquet_column_names(path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        UserError: the file cannot be read.
    """
    with _open(path) as file:
        return list(file.schema_arrow.names)


def read_parquet(path: Path, columns: Columns) -> Iterator[Block]:
    """Reads a file block by block.

    Ids may be integers or strings; integers are read as they would be written in a text file.

    Raises:
        UserError: the file cannot be read, or a column is missing or of an unusable type.
    """
    with _open(path) as file:
        check_names(path, file.schema_arrow.names, columns)
        if file.metadata.num_rows == 0:  # whose columns may have no type either
            return
        _check_types(path, file.schema_arrow, columns)
        row = _FIRST_ROW
        try:
            for batch in file.iter_batches(_BLOCK_ROWS, columns=list(columns.names)):
                users, items = (
                    _ids(path, name, row, batch[name]) for name in (columns.user, columns.item)
                )
                ratings = None if columns.rating is None else _numbers(batch[columns.rating])
                yield Block(path, row, users, items, ratings)
                row += len(batch)
        except _DAMAGE as error:
            raise _damaged(path, error) from None
        rows = row - _FIRST_ROW
        if rows != file.metadata.num_rows:  # a damaged group of rows may end early
            raise _damaged(path, ValueError(f"{rows} of {file.metadata.num_rows} rows are there"))


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise unreadable(path, error) from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _check_types(path: Path, schema: pa.Schema, columns: Columns) -> None:
    for name in (columns.user, columns.item):
        kind = _plain(schema.field(name).type)
        if not (pa.types.is_integer(kind) or _is_text(kind)):
            raise UserError(
                f"{path}: column {name!r} holds {kind}; ids are integers or strings, convert it."
            )
    if columns.rating is not None:
        kind = schema.field(columns.rating).type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        ):
            raise UserError(
                f"{path}: column {columns.rating!r} holds {kind}, not numbers; convert it."
            )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _ids(path: Path, name: str, row: int, column: pa.Array) -> pa.DictionaryArray:
    # A dictionary may be that of the whole file: only what the block has of it is of use.
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.large_string())
    codes = column.dictionary_encode()
    ids = pa.DictionaryArray.from_arrays(codes.indices, codes.dictionary.cast(ID.value_type))
    try:
        ids.dictionary.validate(full=True)
    except pa.ArrowInvalid:
        raise not_utf8(path, f"column {name!r}, row {row + _first_invalid(column)}") from None
    return ids


def _first_invalid(column: pa.Array) -> int:
    """The place of the first text that is not UTF-8."""
    for place, text in enumerate(column.cast(pa.large_binary()).to_pylist()):
        try:
            (text or b"").decode()
        except UnicodeDecodeError:
            return place
    raise AssertionError("one of them is invalid")


def _numbers(column: pa.Array) -> pa.Array:
    """Floating-point numbers; through text from decimal ones, which it rounds correctly."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    return column if column.type == pa.float32() else column.cast(pa.float64())


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is no Parquet file that can be read ({short(str(error))}).")
