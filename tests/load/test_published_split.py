"""--split_dir: a split of somebody else as it is; and --format lists."""

import gzip
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import SMALL, error_of, output_of, run_main, run_prepare, write
from load.test_store import assert_same

from vae.load.store import open_dataset

PARTS = ("train", "validation_tr", "validation_te", "test_tr", "test_te")


def frame(matrix, user_ids, item_ids):
    """The interactions of a matrix, row by row."""
    matrix = matrix.tocoo()
    return pd.DataFrame({"uid": user_ids[matrix.row], "sid": item_ids[matrix.col]})


def write_split(folder, data, suffix=".csv"):
    """Write a data set as the files of Liang et al.'s notebook, or as lists."""
    folder.mkdir()
    held = [(part, ids) for h in data.held_out for part, ids in zip(
        (h.fold_in, h.targets), (h.user_ids, h.user_ids), strict=True)]  # fmt: skip
    for name, (matrix, ids) in zip(PARTS, [(data.train, data.train_user_ids), *held], strict=True):
        rows = frame(matrix, ids, data.item_ids)
        if suffix == ".parquet":
            rows.to_parquet(folder / f"{name}{suffix}")
        elif suffix == ".txt":
            lists = rows.groupby("uid", sort=False).sid.agg(lambda items: " ".join(map(str, items)))
            lines = [f"{user} {items}\n" for user, items in lists.items()]
            write(folder / f"{name}{suffix}", "".join(lines))
        else:
            rows.to_csv(folder / f"{name}{suffix}", index=False)
    write(folder / "unique_sid.txt", "".join(f"{item}\n" for item in data.item_ids))
    return folder


def prepare(data_dir, *flags, dataset="theirs"):
    return run_prepare("--data_dir", data_dir, "--dataset", dataset, *flags)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A folder with a small prepared data set, and that."""
    folder = tmp_path_factory.mktemp("ours")
    rng = np.random.default_rng(3)
    taste = (np.arange(60)[:, None] + np.arange(40)) % 4 == 0
    user, item = np.nonzero(rng.random((60, 40)) < np.where(taste, 0.8, 0.1))
    path = folder / "ratings.csv"
    pd.DataFrame({"userId": user + 7, "movieId": 3 * item}).to_csv(path, index=False)
    flags = ("--ratings", path, "--rating_col", "none", "--heldout_users", 8)
    output_of(prepare(folder, *flags, dataset="ours"))
    return folder, open_dataset(folder, "ours")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".txt"])
def test_our_split_written_out_comes_back_with_its_fingerprint(ours, tmp_path, suffix):
    _, data = ours
    folder = write_split(tmp_path / "pro_sg", data, suffix)
    more = ("--format", "lists") if suffix == ".txt" else ()
    out = output_of(prepare(tmp_path, "--split_dir", folder, *more))
    theirs = open_dataset(tmp_path, "theirs")
    assert_same(theirs, data)
    assert theirs.fingerprint == data.fingerprint
    assert "Validation: 8 users, " in out
    assert "0 held-out interactions dropped" in out
    assert "is already prepared" in output_of(prepare(tmp_path, "--split_dir", folder, *more))


def test_both_give_the_same_metrics(ours, tmp_path):
    data_dir, data = ours
    output_of(prepare(tmp_path, "--split_dir", write_split(tmp_path / "pro_sg", data)))
    shutil.copytree(data_dir / "ours", tmp_path / "ours")

    def metrics(name):
        results = tmp_path / f"results-{name}"
        output_of(run_main(
            "--train", "--test", "--data_dir", tmp_path, "--dataset", name, *SMALL, "--epochs", 3,
            "--results_dir", results, "--log_path", tmp_path / f"{name}.log", "--preset", "small",
        ))  # fmt: skip
        found = json.loads((results / "results.json").read_text())
        return {name: value for name, value in found.items() if "@" in name}

    assert metrics("theirs") == metrics("ours")


@pytest.fixture
def theirs(ours, tmp_path):
    """A folder of such files, for tests to change."""
    return write_split(tmp_path / "pro_sg", ours[1])


def add(path, *rows):
    path.write_text(path.read_text() + "".join(f"{row}\n" for row in rows))


def test_held_out_items_that_training_lacks_are_dropped_and_counted(ours, theirs, tmp_path):
    user, data = ours[1].test.user_ids[0], ours[1]
    add(theirs / "test_tr.csv", f"{user},9998", f"{user},9998")
    add(theirs / "test_te.csv", f"{user},9999")
    out = output_of(prepare(tmp_path, "--split_dir", theirs))
    assert "2 held-out interactions dropped: item not in the training set." in out
    assert_same(open_dataset(tmp_path, "theirs"), data)


@pytest.mark.parametrize(
    ("file", "row", "problem"),
    [
        ("test_tr", "{train},0", "test_tr.csv: user {train} is in train.csv too; training, "),
        ("validation_te", "{train},0", "validation_te.csv: user {train} is in train.csv too"),
        ("test_te", "{validation},0", "test_te.csv: user {validation} is in validation_tr.csv too"),
        ("test_te", "{test},{item}", "test_te.csv: item {item} of user {test} is in test_tr.csv t"),
        ("train", "7", "train.csv: row "),
    ],
)
def test_files_that_are_no_split_are_refused_by_name(ours, theirs, tmp_path, file, row, problem):
    data = ours[1]
    names = {
        "train": data.train_user_ids[0],
        "validation": data.validation.user_ids[0],
        "test": data.test.user_ids[0],
        "item": data.item_ids[data.test.fold_in[0].indices[0]],
    }
    add(theirs / f"{file}.csv", row.format(**names))
    error = error_of(prepare(tmp_path, "--split_dir", theirs))
    assert f"error: {theirs}/{problem.format(**names)}" in error
    assert not (tmp_path / "theirs/preprocessed/manifest.json").exists()


def test_a_missing_or_second_file_of_a_part_is_named(theirs, tmp_path):
    (theirs / "test_te.csv").rename(tmp_path / "x")
    error = error_of(prepare(tmp_path, "--split_dir", theirs))
    assert f"--split_dir {theirs}: has no file of the part test_te, such as test_te.csv." in error
    for name in ("test_te.csv", "test_te.tsv"):
        shutil.copy(tmp_path / "x", theirs / name)
    error = error_of(prepare(tmp_path, "--split_dir", theirs))
    assert "has 2 files of the part test_te (test_te.csv, test_te.tsv); keep one." in error


@pytest.mark.parametrize(("part", "problem"), [("_te", "no target of"), ("_tr", "no item of")])
def test_held_out_users_without_an_item_of_training_are_refused(theirs, tmp_path, part, problem):
    for name in (f"validation{part}", f"test{part}"):
        write(theirs / f"{name}.csv", f"uid,sid\n{name},i1\n")
    error = error_of(prepare(tmp_path, "--split_dir", theirs))
    assert f"{problem} validation{part} is an item of train; check that all files" in error


def interactions_of(folder):
    """The interactions of a prepared data set of lists, as raw ids."""
    data = open_dataset(folder, "theirs")
    found = frame(data.all_histories(), data.all_user_ids(), data.item_ids)
    return sorted(map(tuple, found.to_numpy().tolist()))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(("separator", "more"), [(" ", ()), (",", ("--sep", ","))])
def test_lists_of_repeated_users_and_of_users_without_items_are_read(
    tmp_path, compress, separator, more
):
    rng = np.random.default_rng(0)
    expected = [(user, item) for user in range(30) for item in range(12) if rng.random() < 0.8]
    halves = [
        f"{separator.join(map(str, [user, *(i for u, i in part if u == user)]))}\n"
        for part in (expected[::2], expected[1::2])
        for user in range(32)
    ]
    path = write(tmp_path / "train.txt", compress("".join(halves).encode()))
    flags = ("--ratings", path, "--format", "lists", "--heldout_users", 3, *more)
    out = output_of(prepare(tmp_path, *flags))
    assert f"{len(expected)} rows read, {len(expected)} kept." in out
    assert interactions_of(tmp_path) == expected


def test_a_value_in_a_list_is_refused_with_its_line(tmp_path):
    path = write(tmp_path / "train.txt", "7 1 2 3\n\n8\n7 3 null\n")
    error = error_of(prepare(tmp_path, "--ratings", path, "--format", "lists"))
    assert f"{path}: column 'movieId', row 3" in error
    path.write_bytes(b"7 1 2\n8 \xff\n")
    error = error_of(prepare(tmp_path, "--ratings", path, "--format", "lists"))
    assert f"{path}: row 2: is not valid UTF-8" in error
    write(path, "7\n8\n")
    error = error_of(prepare(tmp_path, "--ratings", path, "--format", "lists"))
    assert f"{path}: no row is a user and items, as --format lists of these data" in error


def test_histories_are_lists_too_and_titles_and_filters_are_rows(tmp_path):
    items = " ".join(map(str, range(12)))
    path = write(tmp_path / "train.txt", "".join(f"{user} {items}\n" for user in range(30)))
    more = ("--ratings", path, "--format", "lists", "--heldout_users", 3)
    output_of(prepare(tmp_path, *more))
    titles = write(tmp_path / "titles.csv", "movieId,title\n" + "".join(
        f"{item},Film {item}\n" for item in range(12)))  # fmt: skip
    history = write(tmp_path / "new.txt", "ann 1 2 3\nbob 4 5\n")
    deny = write(tmp_path / "deny.csv", "movieId\n11\n")
    output_of(run_main(
        "--train", "--data_dir", tmp_path, "--dataset", "theirs", *SMALL, "--epochs", 1,
        "--recommend", history, "--output", tmp_path / "out.csv", "--item_names", titles,
        "--deny", deny, "--log_path", tmp_path / "log", "--preset", "small",
    ))  # fmt: skip
    found = pd.read_csv(tmp_path / "out.csv")
    assert not {1, 2, 3} & set(found[found.userId == "ann"].movieId)
    assert sorted(found[found.userId == "bob"].movieId) == [0, 1, 2, 3, 6, 7, 8, 9, 10]
    assert found.title.str.startswith("Film").all()
    users = write(tmp_path / "users.txt", "7\n8\n")
    model = ("--data_dir", tmp_path, "--dataset", "theirs", "--log_path", tmp_path / "log")
    output_of(run_main(
        "--train", *model, *SMALL, "--epochs", 1, "--recommend", users,
        "--output", tmp_path / "out.csv",
    ))  # fmt: skip
    assert set(pd.read_csv(tmp_path / "out.csv").userId) <= {7, 8}
