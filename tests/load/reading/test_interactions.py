"""Ids, ratings and missing values: alike in CSV, JSON lines and Parquet, and in any blocks."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from helpers import run_prepare
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ratings import COLUMNS, FIRST_ROW, LIKES, WRITERS, problem, read, write, write_csv

from vae.load.reading.files import Source, find_sources
from vae.load.reading.interactions import NULLS, read_interactions

LEAST, GREATEST = -(2**63), 2**63 - 1
DROP = replace(COLUMNS, drop_missing=True)
KEEP = replace(COLUMNS, keep_null_ids=True)
SPELLINGS = [
    "NULL", "null", "Null", "(null)", "NaN", "nan", "NaT", "None", "none", "NONE", "NA", "na",
    "N/A", "n/a", "<NA>", "#n/a", "#N/A", "\\n", "\\N", "NULL ", " nan",
]  # fmt: skip


def rows(user, item, rating=None, **others):
    return {"user": user, "item": item, "rating": rating or [5.0] * len(user), **others}


READ = {
    "below the threshold": (
        rows([7, 5, 7, 5], [30, 20, 20, 30], [3.5, 4.0, 4.5, 0.5]),
        COLUMNS,
        [(5, 20), (7, 20)],
    ),
    "strings": (
        rows(["bob", "alice", "bob", "NULLO"], ["tt01", "tt02", "NAN0", "été"]),
        COLUMNS,
        [("bob", "tt01"), ("alice", "tt02"), ("bob", "NAN0"), ("NULLO", "été")],
    ),
    "one string among numbers": (
        rows(["10", "9", "x"], ["10", "9", "8"]),
        COLUMNS,
        [("10", 10), ("9", 9), ("x", 8)],
    ),
    "a string among numbers that is dropped": (
        rows(["10", "x"], ["1", "2"], [5.0, 1.0]),
        COLUMNS,
        [("10", 1)],
    ),
    "64 bits": (
        rows([GREATEST, LEAST], [LEAST, GREATEST]),
        COLUMNS,
        [(GREATEST, LEAST), (LEAST, GREATEST)],
    ),
    "beyond 64 bits": (
        rows([str(2**63), str(2**64)], [str(2**63), "1"]),
        COLUMNS,
        [(str(2**63), str(2**63)), (str(2**64), "1")],
    ),
    "other scripts": (rows(["12", "1\u0662"], [1, 2]), COLUMNS, [("12", 1), ("1\u0662", 2)]),
    "separators, quotes and line breaks in ids": (
        rows(["Doe, Jane", 'the "x" band'], ['7" disc', "a\nb"]),
        COLUMNS,
        [("Doe, Jane", '7" disc'), ('the "x" band', "a\nb")],
    ),
    "other columns": (
        rows([1, 2], [3, 4], None, note=["x", None], more=[None, 2.5]),
        COLUMNS,
        [(1, 3), (2, 4)],
    ),
    "no ratings": (rows([1, 2], [3, 4], ["bad", None]), LIKES, [(1, 3), (2, 4)]),
    "booleans": (rows([1, 2], [3, 4], [True, False]), COLUMNS, [(1, 3)]),
    "ratings as text": (rows([1, 2], [3, 4], ["5", "3.5"]), COLUMNS, [(1, 3)]),
    "missing values": (
        rows(["a", "", "NULL", "b", None, "c"], [1, 2, 3, None, 5, 6], [5.0] * 5 + [None]),
        DROP,
        [("a", 1)],
    ),
    **{
        f"{other!r} beside 7": (rows(["7", other], [1, 2]), COLUMNS, [("7", 1), (other, 2)])
        for other in ("007", "+7", "-0", "7.0")
    },
    **{
        f"{null!r} as an id": (rows(["a", null], [1, 2]), KEEP, [("a", 1), (null, 2)])
        for null in SPELLINGS
    },
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", READ)
def test_what_is_read(tmp_path, name, kind):
    columns, layout, expected = READ[name]
    path = WRITERS[kind](tmp_path / "r", **columns)
    threshold = 1.0 if name == "booleans" else 4.0
    for block_rows in (3, 1 << 18):
        assert read(path, layout, threshold, block_rows=block_rows) == expected
    interactions = read_interactions([Source(path)], layout, threshold)
    assert interactions.rows_read == len(columns["user"])
    assert interactions.rows_missing == (5 if name == "missing values" else 0)


FIX = "fill it in, remove the row, or prepare the data with --drop_missing"
MISSING = f"the value is missing; {FIX}."
NAMES = "'user', 'item', 'rating'"


def third(name, value, others=5.0):
    """Four rows, the third of which has this value."""
    values = [others] * 4
    values[2] = value
    return {**rows(["a"] * 4, [1] * 4), name: values}


NO_NUMBERS = ["good", "4 stars", "--1", "1_000", "\uff10", "0x1", "1e", "+", "1 2", "\u0665"]
PROBLEMS = {
    "no user": (third("user", None, "a"), f"column 'user', row ROW: {MISSING}"),
    "no item": (third("item", None, 7), f"column 'item', row ROW: {MISSING}"),
    "no rating": (third("rating", None), f"column 'rating', row ROW: {MISSING}"),
    "empty user": (third("user", "", "a"), f"column 'user', row ROW: {MISSING}"),
    "blank item": (third("item", "  ", "a"), f"column 'item', row ROW: {MISSING}"),
    "rating NaN": (third("rating", float("nan")), f"column 'rating', row ROW: {MISSING}"),
    "rating NULL": (third("rating", "null", "5"), f"column 'rating', row ROW: {MISSING}"),
    **{
        f"user {null!r}": (
            third("user", null, "a"),
            f"column 'user', row ROW: {null!r} stands for a missing value; {FIX}, or with "
            "--keep_null_ids if it is an id.",
        )
        for null in SPELLINGS
    },
    "infinite": (third("rating", np.inf), "column 'rating', row ROW: the rating is not finite."),
    **{
        f"rating {text}": (
            third("rating", text, "5"),
            f"column 'rating', row ROW: {text!r} is not a number{fix}.",
        )
        for text, fix in {
            **dict.fromkeys(NO_NUMBERS, ""),
            "4,5": " (for a decimal comma prepare the data with --decimal ,)",
        }.items()
    },
    "below the threshold": (
        {**third("user", None, "a"), "rating": [1.0] * 4},
        f"column 'user', row ROW: {MISSING}",
    ),
    "giant id": (
        third("user", "x" * 257, "a"),
        "column 'user', row ROW: an id has 257 characters, more than 256; look for an unclosed "
        "quote or shorten the ids.",
    ),
    "NUL": (
        third("user", "a\0", "a"),
        "column 'user', row ROW: an id contains a NUL character; prepare the data with --encoding, "
        "e.g. utf-16-le, or remove the character.",
    ),
    "mark": (
        third("item", "a\ufeffb", "a"),
        "column 'item', row ROW: an id contains a byte-order mark; remove it.",
    ),
    "no column of users": (
        {"other": [1], "item": [2], "rating": [5]},
        "has no column 'user' but 'other', 'item', 'rating'; name the columns with --user_col, "
        "--item_col and --rating_col.",
    ),
    "no column of ratings": (
        {"user": [1], "item": [2], "when": [5]},
        "has no column 'rating' but 'user', 'item', 'when'; name the column of ratings with "
        "--rating_col, or pass --rating_col none.",
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_what_cannot_be_read_is_told_with_file_column_and_row(tmp_path, name, kind):
    columns, sentence = PROBLEMS[name]
    path = WRITERS[kind](tmp_path / "r", **columns)
    for block_rows in (2, 1 << 18):
        expected = sentence.replace("ROW", str(FIRST_ROW[kind] + 2))
        assert problem(path, block_rows=block_rows) == expected


@pytest.mark.parametrize("threshold", [0.1, 2.3, 3.3, 4.1])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_rating_as_written_is_at_least_the_same_threshold(tmp_path, kind, threshold):
    path = WRITERS[kind](tmp_path / "r", **rows([1], [2], [threshold]))
    assert read(path, threshold=threshold) == [(1, 2)]


def test_ratings_are_as_exact_as_python_reads_them(tmp_path):
    numbers = np.random.default_rng(0).random(2000)
    path = write_csv(tmp_path / "r", **rows(range(2000), range(2000), numbers.tolist()))
    assert len(read(path, threshold=float(np.sort(numbers)[1000]))) == 1000


def test_nothing_at_or_above_the_threshold_leaves_no_rows_and_counts_them(tmp_path):
    path = write_csv(tmp_path / "r", **rows([1], [2], [3.5]))
    interactions = read_interactions([Source(path)], COLUMNS, 4.5)
    assert interactions.rows_read == 1
    assert len(interactions.users.codes) == len(interactions.users.values) == 0


def test_ids_with_invisible_ends_are_counted_in_a_note(tmp_path):
    users = ["a\u200b", "\xa0a", "a", "a ", "\xa0a"]
    path = write_csv(tmp_path / "r", **rows(users, [1, 1, 1, 1, 2]))
    assert read_interactions([Source(path)], COLUMNS, 4.0).notes == (
        "3 ids of column 'user' begin or end with an invisible character, such as 'a\\u200b'; "
        "remove it if they are to be the ids without it.",
    )


HISTORIES = [
    {"h.json": '{"user": 1, "item": 2}\n{"user": 1, "item": 3, "rating": 1}\n'},
    {"a.csv": "user,item\n1,2\n", "b.csv": "user,item,rating\n1,3,1\n"},
    {"a.csv": "user,item,rating\n1,2,5\n", "b.json": '{"user": 1, "item": 3}'},
]


@pytest.mark.parametrize("block_rows", [1, 9])
@pytest.mark.parametrize("files", HISTORIES)
def test_ratings_that_some_rows_have_and_some_have_not_are_refused(tmp_path, files, block_rows):
    for name, content in files.items():
        write(tmp_path / name, content)
    options = {"keep_all": True, "optional": "rating", "allow_single_column": "user"}
    sources, _ = find_sources([tmp_path])
    with pytest.raises(
        Exception, match=r"row \d \(1,2,\): the value is missing|row \d: has (a|no) column 'r"
    ):
        read(sources, **options, block_rows=block_rows)


@pytest.mark.parametrize("drop_missing", [False, True])
@pytest.mark.parametrize("block_rows", [1, 9])
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("users", [["7", None], [None, "7"]])
def test_a_list_in_which_some_rows_have_a_user_and_some_have_not_is_refused_with_the_row(
    tmp_path, kind, users, block_rows, drop_missing
):
    path = WRITERS[kind](tmp_path / "list", user=users, item=["1", "2"])
    layout = replace(LIKES, drop_missing=drop_missing)
    options = {"optional": "user", "allow_single_column": "item", "block_rows": block_rows}
    # The row in which the column comes or goes is that of the first block that differs.
    row = FIRST_ROW[kind] + users.index(None)
    assert problem(path, layout, **options).startswith(
        (f"column 'user', row {row}: the value is missing; a list has", "row 2: has a column")
    )


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=6)
TABLE = st.lists(
    st.tuples(
        st.integers(LEAST, GREATEST) | TEXT | st.integers(0, 9),
        st.integers(0, 99) | TEXT,
        st.sampled_from([0.5, 3.5, 4, 5.0, 1e1]),
    ),
    min_size=1,
    max_size=30,
)


def slow_read(table, threshold):
    """The interactions; a column's ids are numbers if all of them are."""
    columns = []
    for column in list(zip(*table, strict=True))[:2]:
        texts = [str(text) for text in column]
        try:
            numbers = [int(text) for text in texts]
        except ValueError:
            numbers = []
        are_plain = texts == [str(number) for number in numbers]
        in_range = all(LEAST <= number <= GREATEST for number in numbers)
        columns.append(numbers if are_plain and in_range else texts)
    interactions = zip(*columns, strict=True)
    return [pair for pair, row in zip(interactions, table, strict=True) if row[2] >= threshold]


@settings(max_examples=100, deadline=None)
@given(TABLE, st.sampled_from([0.5, 3.5, 4.0]), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_any_table_is_read_like_by_the_slow_reference(tmp_path_factory, table, threshold, quoting):
    missing = ("", *NULLS)
    assume(not any(str(cell).strip().lower() in missing for row in table for cell in row))
    assume("\ufeff" not in "".join(str(cell) for row in table for cell in row))
    columns = dict(zip(("user", "item", "rating"), zip(*table, strict=True), strict=True))
    folder = tmp_path_factory.getbasetemp()
    path = write_csv(folder / "any.csv", quoting=quoting, **columns)
    assert read(path, threshold=threshold) == slow_read(table, threshold)
    path = WRITERS["json"](folder / "any.json", **columns)
    assert read(path, threshold=threshold) == slow_read(table, threshold)


BASKETS = [[user, *range(user, user + 4 + user % 5)] for user in range(30)]


def baskets(join):
    return {"user": [basket[0] for basket in BASKETS], "item": [*map(join, BASKETS)]}


LISTS = {
    "commas": (baskets(lambda b: ",".join(map(str, b))), "column 'item' seems to have lists, such"),
    "Python": (baskets(str), "column 'item' seems to have lists, such as '[0, 0, 1, 2, 3]'; one r"),
    "spaces": (baskets(lambda b: " ".join(f"N{i}" for i in b)), "column 'item' seems to have lis"),
    "bars": (baskets(lambda b: "|".join(f"b{i}" for i in b)), "column 'item' seems to have lists,"),
    "long": (baskets(lambda _: str([*range(99)])), "column 'item', row ROW (0,[0, 1, "),
}


def prepare_flags(tmp_path, path, *more):
    return (
        "--data_dir", tmp_path, "--dataset", "mine", "--user_col", "user", "--item_col", "item",
        "--heldout_users", 3, "--ratings", path, "--rating_col", "none", *more,
    )  # fmt: skip


def refused(*flags):
    """The sentence with which the preparation ends."""
    done = run_prepare(*flags)
    assert done.returncode == 2
    return done.stderr.splitlines()[-1].removeprefix("prepare_dataset.py: error: ")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", LISTS)
def test_many_items_in_a_value_are_told_that_one_row_per_interaction_is_needed(
    tmp_path, name, kind
):
    columns, sentence = LISTS[name]
    path = WRITERS[kind](tmp_path / "lists", **columns)
    error = refused(*prepare_flags(tmp_path, path))
    assert error.startswith(f"{path}: {sentence.replace('ROW', str(FIRST_ROW[kind]))}")
    assert "one row per interaction" in error


@pytest.mark.parametrize(
    ("kind", "columns", "sentence"),
    [
        ("parquet", {"user": [1], "item": [[1, 2]]}, "column 'item' has the type list<"),
        ("json", {"user": [1], "item": [[1, 2]]}, "column 'item', row 1: [1, 2] is neither a num"),
        ("json", {"1": [[1, 2]], "2": [[1]]}, 'row 1 ({"1": [1, 2], "2": [1]}): is not a JSON obj'),
        (
            "csv",
            {"user": [1], **{str(item): [1] for item in range(30)}},
            "has no column 'item' but 'user', '0', '1', ",
        ),
    ],
)
def test_many_items_in_a_row_are_told_the_same(tmp_path, kind, columns, sentence):
    path = WRITERS[kind](tmp_path / "lists", **columns)
    error = refused(*prepare_flags(tmp_path, path))
    assert error.startswith(f"{path}: {sentence}")
    assert "one row per interaction" in error or "one object per line" in error


@pytest.mark.parametrize("separator", [" ", "|"])
def test_rows_of_items_are_told_the_format_that_reads_them(tmp_path, separator):
    text = "".join(f"{separator.join(map(str, basket))}\n" for basket in BASKETS)
    path = write(tmp_path / "lists", text)
    error = refused(
        "--data_dir", tmp_path, "--dataset", "mine", "--no_header", "--sep", separator,
        "--user_col", 0, "--item_col", 1, "--rating_col", "none", "--ratings", path,
    )  # fmt: skip
    assert error.startswith(f"{path}: row 2 (1,1,2,3,4,5): 6 columns where row 1 has 5; ")
    assert "if each row is a user and many items, prepare the data with --format lists" in error


def test_ids_that_look_like_lists_are_warned_of_where_they_suffice(tmp_path):
    pairs = [
        (u, f"{i}|{u % 3}") for u in range(30) for i in (*range(5), *range(100 * u, 100 * u + 9))
    ]
    users, items = zip(*pairs, strict=True)
    path = write_csv(tmp_path / "r.csv", user=users, item=items)
    done = run_prepare(*prepare_flags(tmp_path, path))
    assert done.returncode == 0
    assert "Warning: column 'item' seems to have lists, such as '0|0'; one row per" in done.stdout


@pytest.mark.parametrize(
    ("user", "items", "warning"),
    [
        ("unknown", 11, "Warning: 1 user has more than half of the 20 items: 'unknown' (11); if "),
        ("unknown", 10, ""),
        (-1, 20, "Warning: 1 user has more than half of the 20 items: -1 (20); if such an id s"),
    ],
)
def test_a_user_with_most_of_the_items_is_named(tmp_path, user, items, warning):
    pairs = [(u, (u + i) % 20) for u in range(30) for i in range(6)]
    users, columns = zip(*pairs, *((user, item) for item in range(items)), strict=True)
    path = write_csv(tmp_path / "r.csv", user=users, item=columns)
    done = run_prepare(*prepare_flags(tmp_path, path))
    assert done.returncode == 0
    warnings = [line for line in done.stdout.splitlines() if line.startswith("Warning")]
    assert [line[: len(warning)] for line in warnings] == ([warning] if warning else [])
