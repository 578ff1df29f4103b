"""Ratings files in the three formats of the reader, and what the reader makes of them."""

import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import write

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.reading.files import Source
from vae.load.reading.interactions import read_interactions

COLUMNS = Columns("user", "item", "rating")
LIKES = Columns("user", "item")


def write_csv(path, separator=",", quoting=csv.QUOTE_MINIMAL, **columns):
    """A text file whose first row, the header, is row 1."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting)
    writer.writerows([columns, *zip(*columns.values(), strict=True)])
    return write(path, buffer.getvalue())


def write_json(path, **columns):
    """JSON lines; those of missing values lack the key or have null."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for row in rows[1::2]:
        for name in [name for name, value in row.items() if value is None]:
            del row[name]
    return write(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def write_parquet(path, **columns):
    """Parquet with row groups of 4 rows."""
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return path


WRITERS = {"csv": write_csv, "json": write_json, "parquet": write_parquet}
FIRST_ROW = {"csv": 2, "json": 1, "parquet": 1}


def pairs(interactions):
    """The interactions as raw ids, in order."""
    for ids in (interactions.users, interactions.items):
        assert ids.codes.dtype == np.int32
        assert (ids.values[:-1] < ids.values[1:]).all()
        assert set(ids.codes) == set(range(len(ids.values)))
    users, items = (i.values[i.codes].tolist() for i in (interactions.users, interactions.items))
    return list(zip(users, items, strict=True))


def read(path, columns=COLUMNS, threshold=4.0, **options):
    """What the reader finds in a file, or in sources."""
    sources = path if isinstance(path, list) else [Source(path)]
    return pairs(read_interactions(sources, columns, threshold, **options))


def problem(path, columns=COLUMNS, threshold=4.0, **options):
    """The sentence about a file that cannot be used, without the file's name."""
    with pytest.raises(UserError) as caught:
        read(path, columns, threshold, **options)
    return sentence_of(caught.value, path)


def sentence_of(error, path):
    """The sentence of an error without the path, with which it begins; it is one short line."""
    # The row's text is what a test wrote; that it is shown is a test of its own.
    sentence = re.sub(r"(\brow \d+) \(.*?\): ", r"\1: ", str(error), count=1)
    assert error.exit_code == 2
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    assert sentence.isprintable() or "\t" in sentence
    assert len(sentence) < 1000
    return sentence.removeprefix(f"{path}: ")
