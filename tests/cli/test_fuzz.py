"""Any input at all is read right or refused in a sentence; ``docs/reliability.md`` has the counts.

``VAE_CF_FUZZ_EXAMPLES=10000 python -m pytest tests/cli/test_fuzz.py`` tries more of them.
"""

import dataclasses
import gzip
import json
import math
import os

import fuzzing
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from load.test_store import FILES, make_split, written

from vae.config import Architecture
from vae.models.checkpoints.checkpoint import FORMAT_VERSION
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


@FUZZ
@given(FILES_OF_RATINGS, st.booleans(), st.sampled_from([64, 1 << 20]))
def test_any_ratings_file_is_read_right_or_refused(tmp_path, content, rated, block):
    with fuzzing.blocks_of(block):
        fuzzing.check_ratings(tmp_path / "ratings.csv", content, rated)


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
    fuzzing.check_ratings(tmp_path / "ratings.csv.gz", content)


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
    every_name = (*FILES, "manifest.json")
    names = st.sampled_from(every_name)

    def damage(folder):
        for name in data.draw(st.lists(names, min_size=1, max_size=3, unique=True)):
            content = (folder / name).read_bytes()
            source = data.draw(st.sampled_from(prepared)) / data.draw(st.sampled_from(every_name))
            new = data.draw(damaged(content) | st.just(source.read_bytes()))
            (folder / name).write_bytes(new)

    fuzzing.check_prepared(prepared[0], tmp_path / "damaged", damage)


STATE = dataclasses.replace(
    TrainState(Architecture(9, 3, 2), "digest", {"lr": 0.1, "checkpoint_dir": "é"}),
    losses=[0.1, 1e-300, 1 / 3], best_ndcg=0.1 + 0.2, best_step=5, step=7,
)  # fmt: skip
SEALED = seal({"format": FORMAT_VERSION, "files": {}, **dataclasses.asdict(STATE)})
JSON = st.recursive(
    st.sampled_from([0, 1, 2.0, True, None, 2**63, math.nan, math.inf]) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
EDITED = st.dictionaries(st.sampled_from([*json.loads(SEALED), "another"]), JSON, min_size=1).map(
    lambda changes: (json.dumps(json.loads(SEALED) | changes, indent=2) + "\n").encode()
)


@FUZZ
@given(damaged(SEALED.encode()) | EDITED | st.binary(max_size=99))
def test_any_state_is_the_one_that_was_written_or_refused(tmp_path, content):
    fuzzing.check_state(tmp_path, STATE, content)
