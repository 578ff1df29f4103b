"""Any input at all is read right or refused in a sentence; ``docs/reliability.md`` has the counts.

``VAE_CF_FUZZ_EXAMPLES=10000 python -m pytest tests/cli/test_fuzz.py`` tries more of them.
"""

import csv
import dataclasses
import gzip
import io
import json
import math
import os
import shutil

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from load.test_store import FILES, assert_same, make_split, written
from ratings import COLUMNS, LIKES, pairs, sentence_of, write

from vae.config import Architecture
from vae.errors import UserError
from vae.load.reading.files import Source
from vae.load.reading.interactions import NULLS, read_interactions
from vae.load.store import open_dataset, prepared_folder
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.train_state import TrainState
from vae.utils.sealed_json import seal

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("VAE_CF_FUZZ_EXAMPLES", "300"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TOKENS = [
    b",", b",", b",", b"\n", b"\n", b"\r\n", b"\r", b'"', b'""', b"\t", b" ", b";", b"\\", b"#",
    b"1", b"2", b"-3", b"007", b"+7", b"9223372036854775807", b"9223372036854775808", b"1e3",
    b"5", b"4.0", b"3.5", b"-0.0", b"1e999", b"inf", b"nan", b"NaN", b"NA", b"null", b"#N/A",
    b"0x10", b"4,5", b"1_0", b"true", b"user", b"item", b"rating", b"bob", b"\xc3\xa9", b"\xff",
    b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x1f\x8b", b"PAR1", b"x" * 257,
]  # fmt: skip
HEADERS = st.sampled_from(
    [
        b"user,item,rating\n",
        b"rating,note,item,user\r\n",
        b'\xef\xbb\xbf"user",item,"rating"\n',
        b"",
    ]
)
CELLS = st.sampled_from(["1", "2", "30", "bob", "é", "a b", "7", "007", 'a"b', "x,y", "l\nm", "4"])
RATINGS = st.sampled_from(["5", "4", "4.0", "3.5", "1e0", "0.1", "-2", " 4", "4 "])


@st.composite
def tables(draw):
    """A file of sound rows, some in quotes, a few bytes of which may have been changed."""
    rows = draw(st.lists(st.tuples(CELLS, CELLS, RATINGS), min_size=1, max_size=12))
    quote = draw(st.sampled_from([lambda cell: True, lambda cell: bool(set(cell) & set('",\n'))]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoted = [
        ",".join('"' + c.replace('"', '""') + '"' if quote(c) else c for c in row) for row in rows
    ]
    content = bytearray(end.join(["user,item,rating", *quoted, ""]).encode())
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content) - 1))
        content[place : place + draw(st.integers(0, 2))] = draw(st.sampled_from([b"", *TOKENS]))
        assume(content)
    return bytes(content)


FILES_OF_RATINGS = (
    tables()
    | st.tuples(HEADERS, st.lists(st.sampled_from(TOKENS), max_size=60)).map(
        lambda parts: parts[0] + b"".join(parts[1])
    )
    | st.tuples(HEADERS, st.binary(max_size=60)).map(b"".join)
)


def check_ratings(path, content, layout=COLUMNS, **options):
    """A file of this content is read as Python's own CSV reader reads it, or refused."""
    write(path, content)
    try:
        found = read_interactions([Source(path)], layout, 4.0, **options)
    except UserError as error:
        sentence_of(error, path)
        return
    plain = gzip.decompress(content) if path.suffix == ".gz" else content
    text = plain.decode(errors="surrogateescape").removeprefix("\ufeff")
    rows = csv.reader(io.StringIO(text, newline=""))
    # A line of white space is blank, too.
    header, *rows = (row for row in rows if row and not (len(row) == 1 and row[0].isspace()))
    assert all(len(row) == len(header) for row in rows)
    expected = []
    for row in rows:
        user, item, *rating = (row[header.index(name)] for name in layout.names)
        assert not {user.strip().lower(), item.strip().lower()} & {"", *NULLS}
        assert "\ufffd" not in user + item
        assert all(math.isfinite(float(number)) for number in rating)
        if not rating or float(*rating) >= 4.0:
            expected.append((user, item))
    assert [(str(user), str(item)) for user, item in pairs(found)] == expected
    assert found.rows_read == len(rows)


@FUZZ
@given(FILES_OF_RATINGS, st.sampled_from([COLUMNS, LIKES]), st.sampled_from([2, 1 << 18]))
def test_any_ratings_file_is_read_right_or_refused(tmp_path, content, layout, block_rows):
    check_ratings(tmp_path / "ratings.csv", content, layout, block_rows=block_rows)


def damaged(content):
    """Strategy: the content with bytes changed, cut off, put in, or moved."""

    def change(places):
        changed = bytearray(content)
        for start, length, new in places:
            start %= len(changed) + 1
            changed[start : start + length] = new
        return bytes(changed)

    place = st.integers(0, max(1, len(content)))
    flip = st.tuples(place, st.just(1), st.binary(min_size=1, max_size=1))
    splice = st.tuples(place, st.integers(0, 9), st.binary(max_size=9))
    cut = st.tuples(place, st.just(len(content)), st.just(b""))
    return st.lists(flip | splice | cut, min_size=1, max_size=4).map(change)


ARCHIVE = gzip.compress(b"user,item,rating\n" + b"1,2,5\n3,4,1\nbob,7,4\n" * 20)


@FUZZ
@given(damaged(ARCHIVE))
def test_any_archive_is_read_right_or_refused(tmp_path, content):
    check_ratings(tmp_path / "ratings.csv.gz", content)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folders of two small prepared data sets."""
    folder = tmp_path_factory.mktemp("prepared")
    return [
        written(folder / name, make_split(n), "set") for n, name in enumerate(("these", "others"))
    ]


@FUZZ
@given(st.data())
def test_any_prepared_data_are_what_was_written_or_refused(tmp_path, prepared, data):
    """Some files are damaged, or hold what another one does, of these data or of others."""
    every_name = (*(f"data-0/{name}" for name in FILES), "manifest.json")
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    files = shutil.copytree(prepared[0], prepared_folder(folder, "set"))
    names = st.lists(st.sampled_from(every_name), min_size=1, max_size=3, unique=True)
    for name in data.draw(names):
        other = data.draw(st.sampled_from(prepared)) / data.draw(st.sampled_from(every_name))
        content = (files / name).read_bytes()
        write(files / name, data.draw(damaged(content) | st.just(other.read_bytes())))
    try:
        found = open_dataset(folder, "set")
    except UserError as error:
        sentence_of(error, files)
    else:
        assert_same(found, make_split())


STATE = dataclasses.replace(
    TrainState(Architecture(9, 3, 2), "digest", {"lr": 0.1, "checkpoint_dir": "é"}),
    losses=[0.1, 1e-300, 1 / 3], best_ndcg=0.1 + 0.2, best_step=5, step=7,
)  # fmt: skip
FILE_DIGESTS = {f"variables.{part}": "0" * 64 for part in ("index", "data-00000-of-00001")}
DOCUMENT = {
    "format": checkpoint.FORMAT_VERSION,
    "files": FILE_DIGESTS,
    **dataclasses.asdict(STATE),
}
SEALED = seal(DOCUMENT)
VALUES = st.sampled_from([0, 1, 3, -1, 2.0, 0.5, True, None, "1", 2**63, math.nan, []])


@st.composite
def edited(draw):
    """The text with other values, as somebody has edited it by hand."""
    changes = draw(st.dictionaries(st.sampled_from([*DOCUMENT, "another"]), VALUES, min_size=1))
    return json.dumps(json.loads(SEALED) | changes, indent=2).encode()


@FUZZ
@given(damaged(SEALED.encode()) | edited() | st.binary(max_size=99))
def test_any_state_is_the_one_that_was_written_or_refused(tmp_path, content):
    path = write(tmp_path / checkpoint.STATE_FILE, content)
    try:
        state = checkpoint.read_state(tmp_path)
    except UserError as error:
        sentence_of(error, path)
    else:  # as text: 1, 1.0 and True are equal
        assert json.dumps(dataclasses.asdict(state)) == json.dumps(dataclasses.asdict(STATE))
