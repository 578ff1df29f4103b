"""Raw histories in the columns of a prepared data set."""

import dataclasses
import gzip

import numpy as np
import pandas as pd
import pytest

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.histories import prepared_histories, read_histories
from vae.load.ids import find_ids
from vae.load.store import open_dataset


@pytest.fixture(scope="session")
def dataset(demo_data):
    return open_dataset(demo_data, "synthetic")


@pytest.fixture
def read(tmp_path, dataset):
    """Reads a file of this text."""

    def read(text, name="histories.csv", **changes):
        (tmp_path / name).write_text(text)
        return read_histories(tmp_path / name, dataclasses.replace(dataset, **changes))

    return read


def lists(matrix):
    return [row.indices.tolist() for row in matrix]


def test_items_rated_below_the_threshold_are_seen_and_not_liked(read, dataset):
    a, b, c = dataset.item_ids[[0, 7, 9]]
    users = read(f"userId,movieId,rating\nu,{a},5\nu,{b},2\nv,{c},1\nv,{a},3.5\n")
    assert users.user_ids.tolist() == ["u", "v"]
    assert lists(users.seen) == [[0, 7], [0, 9]]
    assert lists(users.liked) == [[0], []]
    assert users.unknown_items == 0


def test_without_a_column_of_ratings_everything_is_liked(read, dataset):
    users = read(f"movieId,userId\n{dataset.item_ids[3]},9\n-5,9\n")
    assert lists(users.liked) == lists(users.seen) == [[3]]
    assert users.unknown_items == 1


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_histories_are_in_the_format_of_the_ratings(tmp_path, dataset, compress):
    columns = Columns("0", "1", "2", "::", header=False, encoding="latin-1", drop_missing=True)
    item = dataset.item_ids[3]
    text = f"Ren\u00e9e::{item}::5\n::{item}::5\nBob::-1::5\n"
    (tmp_path / "histories").write_bytes(compress(text.encode("latin-1")))
    users = read_histories(tmp_path / "histories", dataclasses.replace(dataset, columns=columns))
    assert users.user_ids.tolist() == ["Bob", "Ren\u00e9e"]
    assert lists(users.liked) == [[], [3]]
    assert users.notes == ("1 rows with a missing value dropped.",)


NAMED = Columns("userId", "movieId", "rating", separator="\t")
NUMBERED = Columns("0", "1", "2", separator="::", header=False)


@pytest.mark.parametrize(
    ("columns", "text", "note"),
    [
        (NAMED, "userId,movieId\n7,{a}\n7,{b}\n", "assuming ',' between columns"),
        (NAMED, "userId\tmovieId\n7\t{a}\n7\t{b}\n", None),
        (NAMED, "7\t{a}\n7\t{b}\n", "no header row; its columns are taken as userId, movieId"),
        (NAMED, "7;{a}\n7;{b}\n", "no header row; its columns are taken as userId, movieId"),
        (NUMBERED, "7::{a}::5\n7::{b}::5\n", None),
        (NUMBERED, "7,{a}\n7,{b}\n", "assuming ',' between columns"),
    ],
)
def test_separator_and_header_of_histories_need_not_be_those_of_the_ratings(
    read, dataset, columns, text, note
):
    a, b = dataset.item_ids[[3, 5]]
    users = read(text.format(a=a, b=b), columns=columns)
    assert users.user_ids.tolist() == [7]
    assert lists(users.liked) == [[3, 5]]
    assert users.unknown_items == 0
    notes = " ".join(users.notes)
    assert note in notes if note else notes == ""


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b\n1,2\n", "'a', 'b'"),
        ("9,1,978300760\n9,2,978300761\n", "'9', '1', '978300760'"),  # times are no ratings
        ("3\n7\n", "'3'"),  # users or items
    ],
)
def test_a_file_with_other_columns_is_told_which_ones_are_needed(read, text, columns):
    sentence = f"has no column 'userId' but {columns}; histories need the columns and the format of"
    with pytest.raises(UserError, match=sentence):
        read(text)


def test_a_first_row_of_text_is_no_header_where_the_ratings_have_none(read, dataset):
    item = dataset.item_ids[3]
    users = read(f"ann::x\n5::5\n6::{item}\n", columns=NUMBERED)
    assert users.user_ids.tolist() == ["5", "6", "ann"]


def test_ids_match_whether_they_were_read_as_numbers_or_as_text(read, dataset):
    item = dataset.item_ids[3]
    # One row that is no number makes all of the file's ids text; liked rows alone are numbers.
    users = read(f"userId,movieId,rating\n1,{item},5\nx,tt12,1\n")
    assert users.user_ids.tolist() == ["1", "x"]
    assert lists(users.liked) == [[3], []]
    as_text = dataset.item_ids.astype(np.str_)
    assert lists(read(f"userId,movieId\n1,{item}\n", item_ids=as_text).seen) == [[3]]


def test_ids_are_found_in_any_order_and_unknown_ones_are_told_apart():
    assert find_ids(np.array([3, 9, 1]), np.array([9, 1, 10])).tolist() == [-1, 0, 1]
    # As text, 10 comes before 9.
    assert find_ids(np.array(["10", "9", "9.0"]), np.array([9, 10])).tolist() == [1, 0, -1]


USERS_ALONE = {
    "with a header": ("userId\n{}\n{}\n-1\n", {}),
    "where the ratings have none": ("{}\n{}\n-1\n", {"columns": NUMBERED}),
    "JSON lines": ('{{"userId": {}}}\n{{"userId": {}}}\n{{"userId": -1}}\n', {}),
}


@pytest.mark.parametrize("kind", USERS_ALONE)
def test_a_file_of_users_alone_holds_prepared_users(read, dataset, kind):
    everyone = prepared_histories(dataset)
    text, changes = USERS_ALONE[kind]
    chosen = sorted([2, 5000], key=everyone.user_ids.__getitem__)
    users = read(text.format(*everyone.user_ids[chosen]), **changes)
    assert users.user_ids.tolist() == [-1, *everyone.user_ids[chosen]]
    assert lists(users.liked) == lists(users.seen) == [[], *lists(everyone.liked[chosen])]
    assert "1 users unknown to synthetic get the most popular items." in users.notes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "userId,movieId\n1,2.0\n1,x\n",
            "no id in its column 'movieId' is an item of synthetic; its ids",
        ),
        (
            "userId\nx\n",
            "no id in its column 'userId' is a user of synthetic; its ids are like 'x'",
        ),
        ("userId,item\n1,2\n", "has no column 'movieId' but 'userId', 'item'; histories need"),
    ],
)
def test_histories_of_which_nothing_is_known_are_refused(read, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read(text)


def test_a_frame_of_a_visitor_without_a_known_item_is_that_of_a_cold_start_user(dataset):
    users = read_histories(pd.DataFrame({"userId": ["ann"], "movieId": ["no-such-film"]}), dataset)
    assert (lists(users.liked), users.unknown_items) == ([[]], 1)


@pytest.mark.parametrize("columns", [NAMED, NUMBERED, Columns("1", "0", header=False)])
def test_a_frame_of_users_alone_holds_prepared_users_and_one_of_items_is_refused(dataset, columns):
    dataset = dataclasses.replace(dataset, columns=columns)
    user, item = ("userId", "movieId") if columns.header else ("user", "item")
    users = read_histories(pd.DataFrame({user: dataset.train_user_ids[[4]]}), dataset)
    assert lists(users.liked) == lists(dataset.train[4])
    for other in (item, "x"):
        with pytest.raises(UserError, match=f"has no column '{columns.user}' but "):
            read_histories(pd.DataFrame({other: dataset.item_ids[[4]]}), dataset)
    with pytest.raises(UserError, match=f"has no column '{columns.item}' but "):
        read_histories(pd.DataFrame({user: [1], "x": [2]}), dataset)


def test_prepared_users_have_their_whole_history(dataset):
    users = prepared_histories(dataset)
    assert users.users == users.liked.shape[0] == 4953 + 500 + 500
    first = dataset.train.shape[0]
    whole = dataset.validation.fold_in[0] + dataset.validation.targets[0]
    assert users.user_ids[first] == dataset.validation.user_ids[0]
    assert set(users.liked[first].indices) == set(whole.indices)
