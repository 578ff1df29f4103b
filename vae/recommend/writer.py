"""Files of recommendations: CSV or Parquet, written batch by batch, there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from vae.errors import UserError
from vae.utils.atomic import temporary_file


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yields a function that appends a table to the file.

    A thread does the writing while the caller makes the next table; no more than one table waits.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            with ThreadPoolExecutor(max_workers=1) as thread, _open(temporary, schema) as writer:
                pending: list[Future[None]] = []

                def write(table: pa.Table) -> None:
                    if pending:
                        pending.pop().result()
                    pending.append(thread.submit(writer.write_table, table))

                yield write
                if pending:
                    pending.pop().result()
            temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"--output {path}: cannot be written ({error.strerror or error}).", exit_code=1
        ) from None


@contextmanager
def _open(path: Path, schema: pa.Schema) -> Iterator[pa_csv.CSVWriter | pa_parquet.ParquetWriter]:
    """A writer of the format that the name's ending asks for."""
    if path.suffix == ".parquet":
        with pa_parquet.ParquetWriter(path, schema) as writer:
            yield writer
        return
    options = pa_csv.WriteOptions(delimiter="\t" if ".tsv" in path.suffixes else ",")
    # The stream is compressed if the name ends in .gz.
    with (
        pa.output_stream(str(path)) as stream,
        pa_csv.CSVWriter(stream, schema, write_options=options) as writer,
    ):
        yield writer
