"""Ratings in a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vae.errors import UserError, one_line
from vae.load.blocks import ID, Block, check_names, not_utf8, unreadable
from vae.load.columns import Columns

_MAGIC = b"PAR1"
_DAMAGE = (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError)
_BLOCK_ROWS = 1 << 17
_FIRST_ROW = 1


def is_parquet(path: Path) -> bool:
    """Return whether a file is Parquet by its extension or by its first and last bytes."""
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
    """Return the names of the columns.

    Raises:
        UserError: the file cannot be read.
    """
    with _open(path) as file:
        return list(file.schema_arrow.names)


def read_parquet(path: Path, columns: Columns) -> Iterator[Block]:
    """Yield a file block by block.

    Ids may be integers or strings; an integer becomes its decimal text.

    Raises:
        UserError: the file cannot be read, or a column is missing or of an unusable type.
    """
    with _open(path) as file:
        check_names(path, file.schema_arrow.names, columns)
        if file.metadata.num_rows == 0:  # an empty file may have columns without a type
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
        if rows != file.metadata.num_rows:  # a damaged row group may end early
            raise _damaged(
                path, ValueError(f"only {rows} of {file.metadata.num_rows} rows are present")
            )


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
                f"{path}: column {name!r} has the type {kind}; convert it to integers or strings."
            )
    if columns.rating is not None:
        kind = schema.field(columns.rating).type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        ):
            raise UserError(
                f"{path}: column {columns.rating!r} has the type {kind}; convert it to numbers."
            )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _ids(path: Path, name: str, row: int, column: pa.Array) -> pa.DictionaryArray:
    # The dictionary may be that of the whole file: re-encode the ids of this block only.
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
    """Return the position of the first text that is not UTF-8."""
    for position, text in enumerate(column.cast(pa.large_binary()).to_pylist()):
        try:
            (text or b"").decode()
        except UnicodeDecodeError:
            return position
    raise AssertionError("one of them is invalid")


def _numbers(column: pa.Array) -> pa.Array:
    """Return floating-point numbers; decimals go through text, which rounds them correctly."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    return column if column.type == pa.float32() else column.cast(pa.float64())


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is not a readable Parquet file ({one_line(error)}).")
