"""JSON lines and Parquet: values, types, times, and a sentence for what cannot be used."""

import decimal
import gzip
import json
import struct
from contextlib import suppress
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ratings import FIRST_ROW, LIKES, WRITERS, problem, read, write, write_parquet

from vae.errors import UserError
from vae.load.reading.files import Source
from vae.load.reading.interactions import read_interactions

DAY = 86_400.0


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_json_lines_are_read(tmp_path, compress):
    lines = [
        {"user": "a", "item": 1, "rating": 5, "text": "é\u2028"},
        {"rating": 4.0, "user": "b", "item": 2.0},
        {"user": "a", "item": "3", "rating": True},
        {"user": "a", "item": 10**20, "rating": "1"},
    ]
    text = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path = write(tmp_path / "r.json", compress(b"\xef\xbb\xbf" + text.encode()))
    assert read(path) == [("a", "1"), ("b", "2")]
    assert read(path, LIKES)[3] == ("a", str(10**20))


SOUND = '{"user": "a", "item": 1, "rating": 5}\n'
SHAPE = "is not a JSON object of one interaction; JSON files need one object per line: convert the"
JSON_PROBLEMS = {
    SOUND + '{"user"': "row 2: is not a JSON object (",
    SOUND + "7": f"row 2: {SHAPE}",
    '[\n{"user": 1}\n]': f"row 1: {SHAPE}",
    '[{"user": 1}]': f"row 1: {SHAPE}",
    '{\n"user": 1}': f"row 1: {SHAPE}",
    "{'user': 1}": f"row 1: {SHAPE}",
    '{"user": {"0": 1}, "item": {"0": 1}, "rating": {"0": 5}}': f"row 1: {SHAPE}",
    SOUND + "\n" + SOUND + '{"user": [1], "item": 1, "rating": 5}': (
        "column 'user', row 3: [1] is neither a number nor text; one row per interaction is needed"
    ),
    '{"user": true, "item": 1, "rating": 5}': "column 'user', row 1: true is neither a number nor",
    '{"user": 1e400, "item": 1, "rating": 5}': "column 'user', row 1: inf is not an exact integer",
    '{"user": 1.5, "item": 1, "rating": 5}': "column 'user', row 1: 1.5 is not an exact integer; s",
    '{"user": 12345678901234567890.0, "item": 1, "rating": 5}': (
        "column 'user', row 1: 1.2345678901234567e+19 is not an exact integer; store ids as integer"
    ),
    '{"item": 1, "rating": 5}\n' + SOUND: "column 'user', row 1: the value is missing; ",
    SOUND + '{"user": 1, "rating": 5}': "column 'item', row 2: the value is missing; ",
    '{"user": "\\ud800", "item": 1, "rating": 5}': "row 1: is not valid UTF-8",
}


@pytest.mark.parametrize("text", JSON_PROBLEMS)
def test_what_is_wrong_with_json_lines_is_said_with_the_row(tmp_path, text):
    assert problem(write(tmp_path / "r", text)).startswith(JSON_PROBLEMS[text])


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("kind", [*INTEGERS, "string", "large_string"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_ids_may_be_integers_or_strings_plain_or_in_a_dictionary(tmp_path, kind, dictionary):
    ids = pa.array([7, 100, 7, 20, 9, 100]).cast(kind)
    ids = ids.dictionary_encode() if dictionary else ids
    path = write_parquet(tmp_path / "r", user=ids, item=ids, rating=[5.0, 4, 3, 5, 4.5, 5])
    assert read(path) == [(i, i) for i in (7, 100, 20, 9, 100)]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([7, 8], pa.decimal128(38, 0)),
        pa.array([decimal.Decimal("7.00"), decimal.Decimal("8.00")]),
        pa.array([7.0, 8.0]),
        pa.array([b"7", b"8"]),
    ],
)
def test_ids_may_be_whole_numbers_of_any_type_and_binary_text(tmp_path, ids):
    path = write_parquet(tmp_path / "r", user=ids, item=ids, rating=[True, True])
    assert read(path, threshold=1.0) == [(7, 7), (8, 8)]


def test_integers_beyond_64_bits_are_kept_as_strings(tmp_path):
    user = pa.array([2**64 - 1], pa.uint64())
    path = write_parquet(tmp_path / "r", user=user, item=[-1], rating=[5])
    assert read(path) == [(str(2**64 - 1), -1)]


def test_a_category_of_pandas_is_read_and_a_file_is_known_by_its_content(tmp_path):
    frame = pd.DataFrame({"item": ["x", "y", "x"], "user": [3, 1, 3], "rating": [4, 5, 3]})
    frame.astype({"item": "category"}).to_parquet(tmp_path / "ratings.data")
    assert read(tmp_path / "ratings.data") == [(3, "x"), (1, "y")]


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "float16", "float", "double"])
def test_ratings_may_be_any_numbers(tmp_path, kind):
    ratings = pa.array(np.array([3, 4, 5], "f2")).cast(kind)
    path = write_parquet(tmp_path / "r", user=[1, 2, 3], item=[1, 2, 3], rating=ratings)
    assert read(path) == [(2, 2), (3, 3)]


@pytest.mark.parametrize("threshold", [0.1, 2.3, 3.3, 4.1])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.decimal128(5, 2)])
def test_a_rating_of_any_precision_is_at_least_the_same_threshold(tmp_path, kind, threshold):
    number = decimal.Decimal(str(threshold)) if pa.types.is_decimal(kind) else threshold
    path = write_parquet(tmp_path / "r", user=[1], item=[2], rating=pa.array([number], kind))
    assert read(path, threshold=threshold) == [(1, 2)]


RAW = pa.array([b"a", b"b", b"caf\xe9"])
PARQUET_PROBLEMS = {
    "7.5": ([1, 2, 7.5], "column 'user', row 3: 7.5 is not an exact integer; store ids as intege"),
    "infinite": ([1.0, 2.0, np.inf], "column 'user', row 3: inf is not an exact integer; store"),
    "NaN": ([1.0, 2.0, np.nan], "column 'user', row 3: the value is missing; "),
    "2^60": ([1.0, 2.0, 2.0**60], "column 'user', row 3: 1.152921504606847e+18 is not an exact"),
    "latin-1": (
        pa.StringArray.from_buffers(3, *RAW.buffers()[1:]),
        "column 'user', row 3: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1.",
    ),
    **{
        str(kind): (
            pa.nulls(3, kind),
            f"column 'user' has the type {kind}; convert it to numbers or strings.",
        )
        for kind in (pa.bool_(), pa.date32(), pa.null())
    },
}


@pytest.mark.parametrize("name", PARQUET_PROBLEMS)
def test_values_and_types_that_are_no_ids_are_told(tmp_path, name):
    values, sentence = PARQUET_PROBLEMS[name]
    path = write_parquet(tmp_path / "r.parquet", user=values, item=[1, 2, 3], rating=[5, 5, 5])
    assert problem(path).startswith(sentence)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A Parquet file's bytes."""
    path = tmp_path_factory.mktemp("whole") / "ratings.parquet"
    rows = range(300)
    table = pa.table(
        {"user": [f"u{row % 17}" for row in rows], "item": rows, "rating": [4.5] * len(rows)}
    )
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    return path.read_bytes()


@settings(max_examples=60)
@given(st.data())
def test_a_truncated_file_is_one_sentence(tmp_path_factory, whole, data):
    path = tmp_path_factory.getbasetemp() / "truncated.parquet"
    write(path, whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert problem(path).startswith("cannot be read (")


def test_a_group_of_rows_whose_length_is_damaged_is_told(tmp_path, whole):
    hundred = whole.rindex(b"\xc8\x01")  # as the footer has it, for the last group
    content = bytearray(whole)
    content[hundred] ^= 8
    assert problem(write(tmp_path / "damaged.parquet", content)) == (
        "is damaged, with 296 of 300 rows; copy it again."
    )


def test_a_changed_rating_is_told(tmp_path, whole):
    content = bytearray(whole)
    content[whole.index(struct.pack("<d", 4.5)) + 7] ^= 64  # of a whole group of rows
    assert "CRC" in problem(write(tmp_path / "damaged.parquet", content))


@settings(max_examples=150)
@given(st.data())
def test_damage_is_one_sentence_or_does_not_matter(tmp_path_factory, whole, data):
    content = bytearray(whole)
    content[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = write(tmp_path_factory.getbasetemp() / "damaged.parquet", content)
    with suppress(UserError):
        assert len(read(path)) == 300


def read_times(path, **options):
    """The users and times of a file's rows, in order, and the number of missing ones."""
    layout = replace(LIKES, **options)
    interactions = read_interactions([Source(path)], layout, time_column="at")
    assert interactions.times.dtype == np.float64
    users = interactions.users.values[interactions.users.codes].tolist()
    return list(zip(users, interactions.times.tolist(), strict=True)), interactions.rows_missing


def times(at):
    return {"user": [7, 8, 9], "item": [1, 1, 2], "at": at}


TIMES = {
    "numbers": ([86400, 0, 86400], [DAY, 0, DAY]),
    "floats": ([86400.0, -0.5, 86400.0], [DAY, -0.5, DAY]),
    "text": (["86400", "-0.5", "86400"], [DAY, -0.5, DAY]),
    "dates": (["1970-01-02", "1969-12-31T23:59:59.5", "86400"], [DAY, -0.5, DAY]),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", TIMES)
def test_times_are_numbers_or_dates(tmp_path, name, kind):
    values, expected = TIMES[name]
    path = WRITERS[kind](tmp_path / "t", **times(values))
    assert read_times(path) == (list(zip([7, 8, 9], expected, strict=True)), 0)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("first", ["1", "1970-01-02"])
@pytest.mark.parametrize("missing", ["NA", "NULL", None])
def test_rows_without_a_time_can_be_dropped(tmp_path, kind, first, missing):
    path = WRITERS[kind](tmp_path / "t", **times([first, missing, first]))
    at = 1.0 if first == "1" else DAY
    assert read_times(path, drop_missing=True) == ([(7, at), (9, at)], 1)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("soon", "'soon' is neither a number nor a date such as"),
        ("inf", "'inf' is neither a number"),
        ("", "the value is missing"),
        ("NA", "the value is missing"),
    ],
)
def test_a_row_without_a_time_is_reported(tmp_path, kind, value, sentence):
    path = WRITERS[kind](tmp_path / "t", **times(["1", value, "1"]))
    error = problem(path, LIKES, time_column="at")
    assert error.startswith(f"column 'at', row {FIRST_ROW[kind] + 1}: {sentence}")


def test_a_file_without_the_column_of_times_is_told_the_flag(tmp_path):
    path = write(tmp_path / "t.csv", "user,item\n7,1\n")
    error = problem(path, LIKES, time_column="at")
    assert error.startswith("has no column 'at' ")
    assert error.endswith("; name the column of times with --time_col.")


DATES = [pa.date64(), *map(pa.timestamp, ["s", "ms", "us", "ns"]), pa.timestamp("ns", "Asia/Tokyo")]


@pytest.mark.parametrize("kind", [pa.date32(), *DATES, "dictionary"], ids=str)
def test_times_in_parquet_may_be_dates_or_a_dictionary(tmp_path, kind):
    values = pa.array([date(1970, 1, 2), date(1970, 1, 1), None], pa.date32())
    if kind == "dictionary":
        values = pa.array(["86400", "0", None]).dictionary_encode()
    elif kind != pa.date32():
        values = values.cast(pa.timestamp("s")).cast(kind)
    path = write_parquet(tmp_path / "t", **times(values))
    assert read_times(path, drop_missing=True) == ([(7, DAY), (8, 0)], 1)
