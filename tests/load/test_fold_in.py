"""Raw histories in the columns of a prepared data set."""

import dataclasses
import gzip

import numpy as np
import pytest

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.fold_in import find_ids, prepared_histories, read_histories
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


def test_a_file_in_which_nothing_is_liked_is_still_a_file_of_users(read, dataset):
    users = read(f"userId,movieId,rating\n1,{dataset.item_ids[0]},1\n")
    assert users.users == 1
    assert lists(users.liked) == [[]]


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


def test_a_file_with_other_columns_is_told_which_ones_are_needed(read):
    sentence = r"has no column 'userId' but 'a', 'b'; histories need the columns and the format of"
    with pytest.raises(UserError, match=sentence):
        read("a,b\n1,2\n")


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


def test_prepared_users_have_their_whole_history(dataset):
    users = prepared_histories(dataset)
    assert users.users == users.liked.shape[0] == 4953 + 500 + 500
    first = dataset.train.shape[0]
    whole = dataset.validation.fold_in[0] + dataset.validation.targets[0]
    assert users.user_ids[first] == dataset.validation.user_ids[0]
    assert set(users.liked[first].indices) == set(whole.indices)
