"""Reading ratings: what works, and a sentence with file, column and row for what does not."""

import csv
import gzip
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.reading import text as text_rows
from vae.load.reading.files import Source
from vae.load.reading.interactions import NULLS, read_interactions

MOVIELENS = Columns("user", "item", "rating")
NO_RATINGS = Columns("user", "item")


@pytest.fixture
def write(tmp_path):
    """Writes a file from text or bytes; returns its path."""

    def write(content, name="ratings.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(path, columns=MOVIELENS, threshold=4.0):
    """The interactions as raw ids, in order."""
    found = read_interactions([Source(path)], columns, threshold)
    for ids in (found.users, found.items):
        assert ids.codes.dtype == np.int32
        assert (ids.values[:-1] < ids.values[1:]).all()
    users = found.users.values[found.users.codes].tolist()
    items = found.items.values[found.items.codes].tolist()
    return list(zip(users, items, strict=True))


def problem(path, columns=MOVIELENS, threshold=4.0):
    """The sentence about a file that cannot be used, without the file's name."""
    with pytest.raises(UserError) as caught:
        read_interactions([Source(path)], columns, threshold)
    sentence = str(caught.value)
    assert caught.value.exit_code == 2
    assert sentence.startswith(f"{path}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def test_rows_below_the_threshold_are_dropped_and_counted_as_read(write):
    path = write("user,item,rating\n7,30,3.5\n5,20,4.0\n7,20,4.5\n5,30,0.5\n")
    assert read(path) == [(5, 20), (7, 20)]
    assert read_interactions([Source(path)], MOVIELENS, 4.0).rows_read == 4
    assert len(read(path, threshold=0.0)) == 4


@pytest.mark.parametrize("threshold", [0.1, 2.3, 3.3, 4.1])
def test_a_rating_as_written_is_at_least_the_same_threshold(write, threshold):
    assert read(write(f"user,item,rating\n1,2,{threshold}\n"), threshold=threshold) == [(1, 2)]


def test_other_columns_may_stand_anywhere_and_hold_anything(write):
    text = "time,rating,note,item,user\nnow,5,\udcff,30,1\n".encode(errors="surrogateescape")
    assert read(write(text)) == [(1, 30)]


def test_without_a_rating_column_every_row_counts(write):
    path = write("user,item,rating\n1,2,0\n3,4,\n5,6,nonsense\n")
    assert read(path, NO_RATINGS) == [(1, 2), (3, 4), (5, 6)]


def test_ids_may_be_strings(write):
    rows = "bob,tt01,5\nalice,tt02,5\nbob,tt02,1\nbob,NAN0,5\nNULLO,été,5\n"
    expected = [("bob", "tt01"), ("alice", "tt02"), ("bob", "NAN0"), ("NULLO", "été")]
    assert read(write("user,item,rating\n" + rows)) == expected


def test_one_string_makes_all_ids_of_its_column_strings_and_no_other_columns(write):
    path = write("user,item,rating\n10,10,5\n9,9,5\nx,8,5\n")
    assert read(path) == [("10", 10), ("9", 9), ("x", 8)]


def test_ids_may_have_64_bits(write):
    least, greatest = -(2**63), 2**63 - 1
    path = write(f"user,item,rating\n{greatest},{least},5\n{least},{greatest},5\n")
    assert read(path) == [(greatest, least), (least, greatest)]


def test_ids_beyond_64_bits_are_kept_as_strings(write):
    assert read(write(f"user,item,rating\n{2**63},1,5\n{2**64},1,5\n")) == [
        (str(2**63), 1),
        (str(2**64), 1),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfuser,item,rating\n1,2,5\n3,4,5\n",
        b"user,item,rating\r\n1,2,5\r\n3,4,5\r\n",
        b"user,item,rating\r1,2,5\r3,4,5\r",
        b'"user","item","rating"\n"1","2","5"\n"3","4","5"\n',
        b'\xef\xbb\xbf"user",item,rating\r\n1,2,5\r\n3,"4",5',
        b"user,item,rating\n1,2,5\n3,4,5",
        b"user,item,rating\n\n1,2,5\n3,4,5\n\n\n",
    ],
    ids=["bom", "crlf", "cr", "quotes", "all at once", "no last newline", "blank lines"],
)
def test_the_usual_dialects_are_understood(write, content):
    assert read(write(content)) == [(1, 2), (3, 4)]


def test_a_quoted_id_may_hold_separators_and_quotes(write):
    path = write('user,item,rating\n"Doe, Jane","7"" disc",5\n')
    assert read(path) == [("Doe, Jane", '7" disc')]


@pytest.mark.parametrize("separator", ["\t", ";", "|", " "])
def test_columns_may_be_separated_otherwise(write, separator):
    path = write("user,item,rating\n1,2,5\n".replace(",", separator), "ratings.tsv")
    assert read(path, Columns("user", "item", "rating", separator)) == [(1, 2)]


def test_a_compressed_file_is_read_like_a_plain_one(write):
    text = "user,item,rating\n" + "".join(f"{row},{row * 7 % 100},5\n" for row in range(5000))
    plain = read(write(text))
    assert len(plain) == 5000
    assert read(write(gzip.compress(text.encode()), "ratings.csv.gz")) == plain


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=6)
ROWS = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1) | TEXT | st.integers(0, 9),
        st.integers(0, 99) | TEXT,
        st.sampled_from(["0.5", "3.5", "4", "5.0", "1e1"]),
    ),
    min_size=1,
    max_size=30,
)


def slow_read(rows, threshold):
    """The interactions; a column's ids are numbers if all of them are."""
    columns = []
    for column in list(zip(*rows, strict=True))[:2]:
        try:
            assert all(str(i).isascii() and str(i).lstrip("-").isdigit() for i in column)
            numbers = [int(text) for text in column]
            assert all(-(2**63) <= number < 2**63 for number in numbers)
            columns.append(numbers)
        except (ValueError, AssertionError):
            columns.append([str(text) for text in column])
    kept = [float(rating) >= threshold for *_, rating in rows]
    return [
        interaction
        for interaction, keep in zip(zip(*columns, strict=True), kept, strict=True)
        if keep
    ]


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from([0.5, 3.5, 4.0]), st.booleans())
def test_any_table_is_read_like_by_the_slow_reference(tmp_path_factory, rows, threshold, quote):
    # Missing values: tested below.
    assume(not any(str(cell).strip().lower() in ("", *NULLS) for row in rows for cell in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL)
    writer.writerows([("user", "item", "rating"), *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(buffer.getvalue().encode())
    assert read(path, threshold=threshold) == slow_read(rows, threshold)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_an_empty_file_is_reported(write, content):
    sentence = "is empty; add a header row with the names of the columns."
    assert problem(write(content)) == sentence
    assert problem(write(gzip.compress(content), "ratings.csv.gz")) == sentence


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
def test_a_header_alone_is_reported(write, end):
    assert problem(write("user,item,rating" + end)) == "no rows."


@pytest.mark.parametrize("missing", ["user", "item"])
def test_a_missing_column_is_reported_with_those_that_exist(write, missing):
    names = [name if name != missing else "other" for name in ("user", "item", "rating")]
    assert problem(write(",".join(names) + "\n1,2,5\n")) == (
        f"has no column {missing!r} but {', '.join(map(repr, names))}; "
        "name the columns with --user_col, --item_col and --rating_col."
    )


def test_a_file_without_ratings_is_told_the_flag_for_it(write):
    assert problem(write("user,item,when\n1,2,5\n")) == (
        "has no column 'rating' but 'user', 'item', 'when'; name the column of ratings with "
        "--rating_col, or pass --rating_col none."
    )


def test_a_first_row_that_looks_like_data_is_told_how_to_read_a_file_without_a_header(write):
    assert problem(write("196,242,3\n186,302,3\n")) == (
        "has no column 'user' but '196', '242', '3'; row 1 looks like data: for a file without a "
        "header pass --no_header and the numbers of the columns, such as --user_col 0 --item_col 1 "
        "--rating_col 2."
    )


def test_a_header_that_is_none_is_not_repeated_at_length(write):
    for header in ("x" * 300_000, ",".join(f"c{number}" for number in range(9_000))):
        assert len(problem(write(header + "\n1,2,5\n"))) < 400


def test_a_column_that_occurs_twice_is_reported(write):
    sentence = "has 2 columns named 'item'; rename all but one."
    assert problem(write("user,item,item,rating\n1,2,3,5\n")) == sentence


@pytest.mark.parametrize("separator", ["\t", ";", "|", "::", " ", "  \t "])
def test_a_separator_is_guessed_where_one_alone_fits_and_that_is_said(write, separator):
    path = write("user,item,rating\n1,2,5\n".replace(",", separator))
    assert read(path) == [(1, 2)]
    shown = "white space" if " " in separator else repr(separator)
    assert read_interactions([Source(path)], MOVIELENS, 4.0).notes == (
        f"{path}: assuming {shown} between columns; prepare the data with --sep to set it.",
    )


def test_a_comma_is_guessed_in_a_file_named_tsv(write):
    assert read(write("user,item,rating\n1,2,5\n", "ratings.tsv")) == [(1, 2)]


def test_a_separator_that_is_given_is_not_replaced_by_a_guess(write):
    sentence = problem(write("user,item,rating\n1,2,5\n"), replace(MOVIELENS, separator=";"))
    assert sentence.startswith("has no column 'user' but 'user,item,rating'; name the separator")


@pytest.mark.parametrize("ids", ["1,2", "bob,tt01"])
@pytest.mark.parametrize("value", ["good", "4,5", "4 stars", "--1"])
def test_a_rating_that_is_no_number_is_reported_with_its_row(write, ids, value):
    path = write(f'user,item,rating\n{ids},5\n{ids},"{value}"\n{ids},4\n')
    fix = " (for a decimal comma prepare the data with --decimal ,)" if value == "4,5" else ""
    assert problem(path) == f"column 'rating', row 3: {value!r} is not a number{fix}."


@pytest.mark.parametrize("value", ["inf", "-inf", "Infinity", "1e999"])
def test_an_infinite_rating_is_reported_with_its_row(write, value):
    path = write(f"user,item,rating\n1,2,5\n1,3,5\n1,4,{value}\n")
    assert problem(path) == "column 'rating', row 4: the rating is not finite."


@pytest.mark.parametrize("value", ["", '""', "NaN", "nan", "NA", "null"])
def test_a_missing_rating_is_reported_with_its_row(write, value):
    path = write(f"user,item,rating\n1,2,5\n1,3,{value}\n")
    assert problem(path) == (
        "column 'rating', row 3: the value is missing; fill it in, remove the row, or prepare "
        "the data with --drop_missing."
    )


@pytest.mark.parametrize(
    ("column", "row"),
    [("user", ",2,5"), ("item", "1,,5"), ("user", '"",2,5'), ("item", '1,"",5')],
)
@pytest.mark.parametrize("others", ["7,8,5", "bob,tt01,5"])
def test_a_missing_id_is_reported_with_its_row(write, column, row, others):
    path = write(f"user,item,rating\n{others}\n{row}\n{others}\n")
    assert problem(path) == (
        f"column {column!r}, row 3: the value is missing; fill it in, remove the row, or prepare "
        "the data with --drop_missing."
    )


def test_a_row_below_the_threshold_is_checked_too(write):
    assert "row 3: the value is missing" in problem(write("user,item,rating\n1,2,5\n,2,1\n"))


@pytest.mark.parametrize("others", ["7", "bob"])
def test_invalid_utf8_in_an_id_is_reported_with_its_row(write, others):
    path = write(b"user,item,rating\n%b,2,5\ncaf\xe9,2,5\n" % others.encode())
    assert (
        problem(path)
        == "row 3: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1."
    )


def test_invalid_utf8_in_the_header_is_reported(write):
    sentence = "row 1: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1."
    assert problem(write(b"us\xe9r,item,rating\n1,2,5\n")) == sentence


@pytest.mark.parametrize(("row", "found"), [("1,2", 2), ("1,2,5,6", 4), ("1", 1), ("1,a,b,5", 4)])
@pytest.mark.parametrize("others", ["7,8,5", "bob,tt01,5"])
def test_a_ragged_row_is_reported_with_its_number(write, row, found, others):
    assert problem(write(f"user,item,rating\n{others}\n{others}\n{row}\n{others}\n")) == (
        f"row 4: {found} columns where row 1 has 3; quote values that contain the separator."
    )


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_truncated_archive_is_reported_wherever_it_ends(tmp_path_factory, data):
    rows = "".join(f"{row},{row * row % 9973},5\n" for row in range(3000))
    archive = gzip.compress(f"user,item,rating\n{rows}".encode())
    path = tmp_path_factory.getbasetemp() / "truncated.csv.gz"
    path.write_bytes(archive[: data.draw(st.integers(2, len(archive) - 1))])
    assert problem(path).startswith("cannot be read (")


def test_a_damaged_archive_is_reported(write):
    archive = bytearray(gzip.compress(b"user,item,rating\n" + b"1,2,5\n" * 5000))
    archive[-6] ^= 1  # in the checksum
    assert problem(write(archive, "ratings.csv.gz")).startswith("cannot be read (")


def test_nothing_at_or_above_the_threshold_leaves_no_rows_and_counts_them(write):
    path = write("user,item,rating\n1,2,3.5\n")
    found = read_interactions([Source(path)], MOVIELENS, 4.5)
    assert found.rows_read == 1
    assert len(found.users.codes) == len(found.users.values) == 0


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("7,8,bad", "column 'rating', row 902: 'bad' is not a number."),
        ("7,8,inf", "column 'rating', row 902: the rating is not finite."),
        (
            "7,,5",
            "column 'item', row 902: the value is missing; fill it in, remove the row, or prepare "
            "the data with --drop_missing.",
        ),
        (
            "7,8",
            "row 902: 2 columns where row 1 has 3; quote values that contain the separator.",
        ),
        (
            "\udcff,8,5",
            "row 902: is not valid UTF-8; prepare the data with --encoding, e.g. latin-1.",
        ),
    ],
)
def test_rows_are_counted_across_the_blocks_that_threads_read(write, monkeypatch, row, sentence):
    monkeypatch.setattr(text_rows, "_BLOCK_BYTES", 256)
    rows = [f"{number},{number},5" for number in range(1000)]
    rows[10] = "bob,1,5"  # turns ids that were numbers at first into strings
    rows[900] = row
    text = "\n".join(["user,item,rating", *rows])
    assert problem(write(text.encode(errors="surrogateescape"))) == sentence


def test_a_string_id_is_never_blamed_for_a_bad_rating_after_it(write, monkeypatch):
    # Which of the two the threads meet first is chance.
    monkeypatch.setattr(text_rows, "_BLOCK_BYTES", 256)
    rows = [f"{number},{number},5" for number in range(60)]
    rows[5], rows[29] = "bob,1,5", "1,2,bad"
    path = write("\n".join(["user,item,rating", *rows]))
    for _ in range(100):
        assert problem(path) == "column 'rating', row 31: 'bad' is not a number."


def test_string_ids_are_alike_in_every_block(write, monkeypatch):
    monkeypatch.setattr(text_rows, "_BLOCK_BYTES", 256)
    interactions = [(f"u{row % 7}", f"i{row % 11}") for row in range(1000)]
    path = write("user,item\n" + "".join(f"{user},{item}\n" for user, item in interactions))
    assert read(path, NO_RATINGS) == interactions


@pytest.mark.parametrize("other", ["007", "+7", "-0", "7.0"])
def test_ids_stay_as_they_are_written_where_numbers_would_lose_something(write, other):
    path = write(f"user,item,rating\n7,1,5\n{other},2,5\n")
    assert read(path) == [("7", 1), (other, 2)]


def test_a_giant_id_is_reported(write):
    assert problem(write(f"user,item,rating\n{'x' * 257},2,5\n")) == (
        "column 'user', row 2: an id has 257 characters, more than 256; "
        "look for an unclosed quote or shorten the ids."
    )


def test_a_nul_character_is_reported_with_its_row(write):
    assert problem(write("user,item,rating\nb,2,5\na\0,2,5\na,2,5\n")) == (
        "row 3: contains a NUL character; prepare the data with --encoding, e.g. utf-16-le, or "
        "remove the character."
    )
