"""A table's file is complete or absent."""

from contextlib import suppress

import pandas as pd
import pyarrow as pa
import pytest

from vae.errors import UserError
from vae.recommend.writer import table_writer

SCHEMA = pa.schema({"user": pa.int64(), "title": pa.string()})
FRAME = pd.DataFrame({"user": [1, 2], "title": ["a", None]})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_interrupted_table_leaves_the_earlier_file_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"r.{suffix}"
    with table_writer("--output", path, SCHEMA) as write:
        write(FRAME)
    before = path.read_bytes()
    with suppress(KeyboardInterrupt), table_writer("--output", path, SCHEMA) as write:
        write(FRAME)
        write(FRAME)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_failed_write_names_the_flag_and_the_file(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file/r.csv"
    with pytest.raises(UserError) as caught, table_writer("--output", path, SCHEMA):
        pass
    assert caught.value.exit_code == 1
    assert str(caught.value).startswith(f"--output {path}: cannot be written (")
