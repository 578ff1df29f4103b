"""Parquet: the same rows as from text, and a sentence for what cannot be used."""

import decimal
import struct
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.reading import tables
from vae.load.reading.files import Source
from vae.load.reading.interactions import read_interactions

COLUMNS = Columns("user", "item", "rating")


@pytest.fixture
def write(tmp_path):
    """Writes columns as a Parquet file; returns its path."""

    def write(name="ratings.parquet", **columns):
        pq.write_table(pa.table(columns), tmp_path / name, row_group_size=4)
        return tmp_path / name

    return write


def read(path, columns=COLUMNS, threshold=4.0):
    """The interactions as raw ids, in order."""
    found = read_interactions([Source(path)], columns, threshold)
    users = found.users.values[found.users.codes].tolist()
    items = found.items.values[found.items.codes].tolist()
    return list(zip(users, items, strict=True))


def problem(path, columns=COLUMNS):
    """The sentence about a file that cannot be used, without the file's name."""
    with pytest.raises(UserError) as caught:
        read_interactions([Source(path)], columns, 4.0)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
TEXTS = ["string", "large_string"]


@pytest.mark.parametrize("kind", [*INTEGERS, *TEXTS])
@pytest.mark.parametrize("dictionary", [False, True])
def test_ids_may_be_integers_or_strings_plain_or_in_a_dictionary(write, kind, dictionary):
    numbers = [7, 100, 7, 20, 9, 100]
    ids = pa.array(numbers).cast(kind)
    ids = ids.dictionary_encode() if dictionary else ids
    path = write(user=ids, item=ids, rating=[5.0, 4, 3, 5, 4.5, 5])
    assert read(path) == [(i, i) for i in (7, 100, 20, 9, 100)]


def test_ids_that_are_no_numbers_stay_as_they_are(write):
    path = write(user=["b", "007", "é"], item=[1, 2, 3], rating=[5, 5, 5])
    assert read(path) == [("b", 1), ("007", 2), ("é", 3)]


def test_integers_beyond_64_bits_are_kept_as_strings(write):
    path = write(user=pa.array([2**64 - 1], pa.uint64()), item=[-1], rating=[5])
    assert read(path) == [(str(2**64 - 1), -1)]


def test_a_category_of_pandas_is_read(tmp_path):
    frame = pd.DataFrame({"item": ["x", "y", "x"], "user": [3, 1, 3], "rating": [4, 5, 3]})
    frame.astype({"item": "category"}).to_parquet(tmp_path / "ratings.parquet")
    assert read(tmp_path / "ratings.parquet") == [(3, "x"), (1, "y")]


def test_a_file_is_known_by_its_content_whatever_its_name_is(write):
    path = write("ratings.data", user=[1], item=[2], rating=[5])
    assert read(path) == [(1, 2)]


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "float16", "float", "double"])
def test_ratings_may_be_any_numbers(write, kind):
    ratings = pa.array(np.array([3, 4, 5], "f2")).cast(kind)
    assert read(write(user=[1, 2, 3], item=[1, 2, 3], rating=ratings)) == [(2, 2), (3, 3)]


@pytest.mark.parametrize("threshold", [0.1, 2.3, 3.3, 4.1])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.decimal128(5, 2)])
def test_a_rating_is_at_least_the_same_threshold(write, kind, threshold):
    number = decimal.Decimal(str(threshold)) if pa.types.is_decimal(kind) else threshold
    path = write(user=[1], item=[2], rating=pa.array([number], kind))
    assert read(path, threshold=threshold) == [(1, 2)]


def test_without_a_rating_column_every_row_counts(write):
    path = write(user=[1, 2], item=[3, 4], rating=["bad", None])
    assert read(path, Columns("user", "item")) == [(1, 3), (2, 4)]


@pytest.mark.parametrize("kind", ["bool_", "date32", "null"])
def test_ids_of_another_type_are_refused_with_its_name(write, kind):
    column = pa.nulls(1, getattr(pa, kind)())
    sentence = "; convert it to integers or strings."
    assert problem(write(user=column, item=[1], rating=[5])) == (
        f"column 'user' has the type {column.type}{sentence}"
    )
    assert problem(write(user=[1], item=column, rating=[5])) == (
        f"column 'item' has the type {column.type}{sentence}"
    )


@pytest.mark.parametrize("ratings", [["5"], [b"5"]])
def test_ratings_that_are_no_numbers_are_refused(write, ratings):
    kind = pa.array(ratings).type
    assert problem(write(user=[1], item=[2], rating=ratings)) == (
        f"column 'rating' has the type {kind}; convert it to numbers."
    )


@pytest.mark.parametrize("block_rows", [2, 1000])
@pytest.mark.parametrize("name", ["user", "item", "rating"])
def test_a_missing_value_is_reported_with_its_row(write, monkeypatch, name, block_rows):
    monkeypatch.setattr(tables, "_BLOCK_ROWS", block_rows)
    columns = {key: [5, 5, 5, 5, 5, 5, 5] for key in ("user", "item", "rating")}
    columns[name] = [5, 5, 5, 5, 5, None, 5]
    assert problem(write(**columns)) == (
        f"column {name!r}, row 6: the value is missing; fill it in, remove the row, or prepare "
        "the data with --drop_missing."
    )


def test_an_empty_string_is_a_missing_id(write):
    sentence = problem(write(user=["a", ""], item=[1, 2], rating=[5, 5]))
    assert sentence.startswith("column 'user', row 2: the value is missing")


def test_an_infinite_rating_is_reported_with_its_row(write):
    sentence = problem(write(user=[1, 2], item=[1, 2], rating=[5, float("inf")]))
    assert sentence == "column 'rating', row 2: the rating is not finite."


def test_text_that_is_not_utf8_is_reported_with_its_row(write):
    raw = pa.array([b"a", b"b", b"caf\xe9"])
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    assert problem(write(user=text, item=[1, 2, 3], rating=[5, 5, 5])) == (
        "column 'user', row 3: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1."
    )


def test_a_missing_column_is_reported_with_those_that_exist(write):
    assert problem(write(user=[1], thing=[2], rating=[5])) == (
        "has no column 'item' but 'user', 'thing', 'rating'; "
        "name the columns with --user_col, --item_col and --rating_col."
    )


def test_a_file_without_rows_is_reported(write):
    assert problem(write(user=pa.array([], "int64"), item=pa.array([], "int64"),
                         rating=pa.array([], "double"))) == "no rows."  # fmt: skip


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


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_truncated_file_is_one_sentence(tmp_path_factory, whole, data):
    path = tmp_path_factory.getbasetemp() / "truncated.parquet"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert problem(path).startswith("is not a readable Parquet file (")


def test_a_group_of_rows_whose_length_is_damaged_is_told(tmp_path, whole):
    hundred = whole.rindex(b"\xc8\x01")  # as the footer has it, for the last group
    content = bytearray(whole)
    content[hundred] ^= 8
    (tmp_path / "damaged.parquet").write_bytes(content)
    assert problem(tmp_path / "damaged.parquet") == (
        "is not a readable Parquet file (only 296 of 300 rows are present)."
    )


def test_a_changed_rating_is_told(tmp_path, whole):
    content = bytearray(whole)
    content[whole.index(struct.pack("<d", 4.5)) + 7] ^= 64  # of a whole group of rows
    (tmp_path / "damaged.parquet").write_bytes(content)
    assert "CRC" in problem(tmp_path / "damaged.parquet")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_one_sentence_or_does_not_matter(tmp_path_factory, whole, data):
    content = bytearray(whole)
    content[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(content)
    with suppress(UserError):
        assert len(read(path)) == 300
