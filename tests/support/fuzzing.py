"""What must hold for any input at all: a right result or one sentence, nothing else.

Hypothesis draws the inputs in ``test_fuzz.py``; a coverage-guided fuzzer can as well.
"""

import contextlib
import csv
import dataclasses
import gzip
import io
import json
import math
import shutil

import numpy as np
from load.test_store import assert_same, make_split

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.reading import text as text_rows
from vae.load.reading.files import Source
from vae.load.reading.interactions import NULLS, read_interactions
from vae.load.store import open_dataset, prepared_folder
from vae.models.checkpoints import checkpoint

THRESHOLD = 4.0


@contextlib.contextmanager
def blocks_of(size):
    """Has the reader take its files in small blocks, whose ends then fall anywhere."""
    before, text_rows._BLOCK_BYTES = text_rows._BLOCK_BYTES, size
    try:
        yield
    finally:
        text_rows._BLOCK_BYTES = before


def read(path, columns):
    """The reader under test: the pairs that count, ids as they are written, and the rows read."""
    found = read_interactions([Source(path)], columns, THRESHOLD)
    ids = []
    for column in (found.users, found.items):
        assert column.codes.dtype == np.int32
        assert (column.values[:-1] < column.values[1:]).all()
        assert set(column.codes) == set(range(len(column.values)))
        ids.append(column.values[column.codes].astype(str).tolist())
    return list(zip(*ids, strict=True)), found.rows_read


def check_ratings(path, content, rated=True):
    """Reads a file of this content; whatever comes out, it is a sentence or what is written there.

    Returns:
        The sentence, None if the file was read.
    """
    path.write_bytes(content)
    columns = Columns("user", "item", "rating" if rated else None)
    try:
        found = read(path, columns)
    except UserError as error:
        return checked_sentence(path, error)
    if path.suffix != ".parquet":
        plain = gzip.decompress(content) if path.suffix == ".gz" else content
        assert found == slow_read(plain.decode(errors="surrogateescape"), rated)
    return None


def slow_read(text, rated):
    """What ``read`` should find, by Python's own CSV reader."""
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    rows = [row for row in rows if row]
    header, rows = rows[0], rows[1:]
    assert all(len(row) == len(header) for row in rows)
    places = [header.index(name) for name in ("user", "item", *(["rating"] if rated else []))]
    table = [[row[place] for place in places] for row in rows]
    for user, item, *rating in table:
        assert not {user.strip().lower(), item.strip().lower()} & {"", *NULLS}
        assert "\ufffd" not in user + item
        assert all(math.isfinite(float(number)) for number in rating)
    pairs = [
        (user, item) for user, item, *rating in table if not rated or float(*rating) >= THRESHOLD
    ]
    return pairs, len(table)


def check_prepared(sound, folder, damage):
    """Opens damaged prepared data: they are refused, or they are what was prepared.

    Args:
        sound: folder of a data set that ``prepared`` made.
        folder: where to put the damaged one.
        damage: changes the files in the folder that it is given.
    """
    shutil.rmtree(folder, ignore_errors=True)
    files = prepared_folder(folder, "set")
    shutil.copytree(sound, files)
    damage(files)
    try:
        data = open_dataset(folder, "set")
    except UserError as error:
        return checked_sentence(files, error)
    assert_same(data, make_split())
    return None


def check_state(folder, expected, content):
    """Reads a ``state.json`` of this content: it is refused, or the expected state.

    Returns:
        The sentence, None if the file was read.
    """
    path = folder / checkpoint.STATE_FILE
    path.write_bytes(content)
    try:
        state = checkpoint.read_state(folder)
    except UserError as error:
        return checked_sentence(path, error)
    # As text: 1, 1.0 and True are equal.
    assert json.dumps(dataclasses.asdict(state)) == json.dumps(dataclasses.asdict(expected))
    return None


def checked_sentence(path, error):
    """The sentence of an error, which names the file, is short and stands on one line."""
    sentence = str(error)
    assert error.exit_code == 2
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    assert sentence.isprintable() or "\t" in sentence
    assert len(sentence) < 1000
    return sentence
