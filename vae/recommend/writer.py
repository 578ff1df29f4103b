"""Tables in CSV or Parquet files, written batch by batch and complete or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from vae.utils.atomic import temporary_file
from vae.utils.outputs import report_write_errors


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that appends the rows of a data frame to the file.

    A thread writes while the caller computes the next data frame; at most one waits. Arrow writes,
    since ``DataFrame.to_csv`` takes ten times as long: as long as the model takes to recommend.

    Args:
        path: the file, ``--output``; the suffix of its name chooses the format.
        schema: names and types of the columns of each data frame.

    Raises:
        UserError: the file cannot be written.
    """
    with report_write_errors(f"--output {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            with ThreadPoolExecutor(max_workers=1) as thread, _open(temporary, schema) as writer:
                pending: list[Future[None]] = []

                def write(frame: pd.DataFrame) -> None:
                    if pending:
                        pending.pop().result()
                    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
                    pending.append(thread.submit(writer.write_table, table))

                yield write
                if pending:
                    pending.pop().result()
            temporary.replace(path)


@contextmanager
def _open(path: Path, schema: pa.Schema) -> Iterator[pa_csv.CSVWriter | pa_parquet.ParquetWriter]:
    """Open a writer of the format that the suffix of the file's name stands for."""
    # Python opens the file: Arrow takes no name that is not UTF-8.
    with path.open("wb") as file:
        if path.suffix == ".parquet":
            with pa_parquet.ParquetWriter(file, schema) as writer:
                yield writer
            return
        compression = "gzip" if path.suffix == ".gz" else None
        options = pa_csv.WriteOptions(delimiter="\t" if ".tsv" in path.suffixes else ",")
        with (
            pa.output_stream(file, compression) as stream,
            pa_csv.CSVWriter(stream, schema, write_options=options) as writer,
        ):
            yield writer
