"""Lists of allowed and denied items, from every format that ratings have."""

import dataclasses
import gzip
import os
import threading

import numpy as np
import pandas as pd
import pytest

from vae.errors import UserError
from vae.load.config import Columns
from vae.load.dataset import Dataset, HeldOut
from vae.load.item_filters import ItemFilters, read_item_filter

COLUMNS = Columns("user", "film", "rating")
HEADERLESS = Columns("0", "1", "2", "::", header=False)
NOBODY = HeldOut(None, None, np.array([], int))
TINY = Dataset(
    None, np.array([7]), np.array([10, 20, 30, 40]), NOBODY, NOBODY,
    name="tiny", fingerprint="", columns=COLUMNS, threshold=4.0,
)  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Reads a list from a file of this content."""

    def read(content, columns=COLUMNS, name="list.csv", needs_items=False):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        dataset = dataclasses.replace(TINY, columns=columns)
        return read_item_filter(tmp_path / name, "--deny", dataset, needs_items)

    return read


def lists(items):
    return [row.indices.tolist() for row in items]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("film\n30\n10\n30\n", COLUMNS),
        ('note;film\nx;"30"\ny;10\n', COLUMNS),
        ('{"film": 30}\n{"film": 10}\n', COLUMNS),
        (gzip.compress(b"film\n30\n10\n", mtime=0), COLUMNS),
        ("30\n10\n", HEADERLESS),
        ("30\r\n10", dataclasses.replace(HEADERLESS, separator=None)),
        ("30\n10\n", Columns("1", "0", None, header=False)),
        ("30\n10\n", COLUMNS),
        ("film,note\n30,x\n10,y\n", dataclasses.replace(COLUMNS, separator="\t")),
    ],
)
def test_a_column_of_items_alone_is_for_everybody(read, content, columns):
    found = read(content, columns)
    assert found.user_ids is None
    assert lists(found.items) == [[0, 2]]
    assert found.unknown_items == 0


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("user,film,rating\n9,30,1\n8,10,\n9,20,5\n", COLUMNS),
        ("film,user\n30,9\n10,8\n20,9\n", COLUMNS),
        ("9::30::5\n8::10::1\n9::20::1\n", HEADERLESS),
        ("30 9\n10 8\n20 9\n", Columns("1", "0", None, header=False)),
    ],
)
def test_with_a_column_of_users_each_has_a_list(read, content, columns):
    found = read(content, columns)
    assert found.user_ids.tolist() == [8, 9]
    assert lists(found.of_users(np.array([9, 1, 8]))) == [[1, 2], [], [0]]
    assert lists(found.of_users(np.array(["8", "x"]))) == [[0], []]


def test_a_parquet_file_and_a_data_frame_are_read_alike(tmp_path):
    frame = pd.DataFrame({"user": ["a", "b"], "film": [30, 99], "other": [object(), 1]})
    frame[["user", "film"]].to_parquet(tmp_path / "p.parquet")
    for table in (frame, tmp_path / "p.parquet"):
        found = read_item_filter(table, "deny", TINY, needs_items=False)
        assert found.user_ids.tolist() == ["a", "b"]
        assert lists(found.of_users(found.user_ids)) == [[2], []]
        assert found.unknown_items == 1


def test_a_list_may_come_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("film\n20\n"))
    writer.start()
    found = read_item_filter(tmp_path / "pipe", "--deny", TINY, needs_items=False)
    writer.join()
    assert lists(found.items) == [[1]]


def test_what_is_unknown_is_counted_and_said(read):
    everybody = read("film\n30\n31\n32\n")
    assert everybody.describe("--deny d.csv", np.array([7])) == [
        "--deny d.csv: 1 items for all users; items unknown to the model, skipped: 2."
    ]
    by_user = read("user,film\n7,30\n7,40\n5,30\n6,99\n")
    assert by_user.describe("--deny d.csv", np.array([7])) == [
        "--deny d.csv: 3 items of 3 users; items unknown to the model, skipped: 1; "
        "users without a history to recommend for, skipped: 2."
    ]


def test_a_list_without_rows_denies_nothing_and_cannot_be_all_that_is_allowed(read):
    assert lists(read("film\n").items) == [[]]
    with pytest.raises(UserError, match=r"list\.csv: has no rows\.$"):
        read("film\n", needs_items=True)
    with pytest.raises(UserError, match="its ids are like '010', those of the data set like '10'"):
        read("film\n010\n", needs_items=True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("movie\n10\n", "has no column 'film' but 'movie'; a filter has the item column of"),
        ("user,film\n,10\n", r"column 'user', row 2 \(10,\): the value is missing"),
        ("user,film\n7,10\n8\n", r"row 3 \(8\): 1 columns where row 1"),
    ],
)
def test_an_unusable_list_is_one_sentence_with_the_flag(read, content, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read(content)
    assert str(caught.value).startswith("--deny ")


def test_files_of_both_kinds_in_a_folder_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("film\n10\n")
    (tmp_path / "b.csv").write_text("film,user\n10,7\n")
    with pytest.raises(UserError, match=r"b\.csv: row 2: has a column 'user'"):
        read_item_filter(tmp_path, "--deny", TINY, needs_items=False)


def test_the_rules_for_everybody_make_one_mask(read):
    allow, deny = read("film\n10\n20\n"), read("film\n20\n40\n")
    assert ItemFilters(allow, deny).excluded().tolist() == [False, True, True, True]
    assert ItemFilters(deny=deny).excluded().tolist() == [False, True, False, True]
    assert ItemFilters().excluded() is None
    by_user = read("user,film\n7,10\n")
    rules = ItemFilters(by_user, by_user)
    assert rules.excluded() is None
    assert lists(rules.allowed(np.array([7, 8]))) == lists(rules.denied(np.array([7, 8])))
