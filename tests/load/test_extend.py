"""--extend: prepared data that grow."""

import dataclasses
import os
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, error_of, output_of, run_prepare, write
from load.test_store import assert_same

from vae.load import store
from vae.load.store import open_dataset, prepared_folder, read_manifest

BASE = ("--heldout_users", 6, "--min_items_per_user", 4)
GOLDEN = ROOT / f"tests/golden/prepared-{store.FORMAT_VERSION}"


def pairs(matrix, user_ids, item_ids):
    """The interactions of a matrix as raw ids."""
    matrix = matrix.tocoo()
    users, items = user_ids[matrix.row].tolist(), item_ids[matrix.col].tolist()
    return set(zip(users, items, strict=True))


def content(data_dir, name):
    """The interactions of each part of a data set, and those that wait, as raw ids."""
    data = open_dataset(data_dir, name)
    parts = [(data.train, data.train_user_ids)]
    parts += [(m, h.user_ids) for h in data.held_out for m in (h.fold_in, h.targets)]
    folder = prepared_folder(data_dir, name)
    waiting = pq.read_table(folder / read_manifest(folder).folder / "waiting.parquet").to_pydict()
    values = {name: sorted(ids.tolist()) for name, (_, ids) in enumerate(parts)}
    found = [pairs(matrix, ids, data.item_ids) for matrix, ids in parts]
    return found, values, set(zip(*waiting.values(), strict=True))


def prepare(data_dir, name, paths, *flags):
    return output_of(
        run_prepare("--data_dir", data_dir, "--dataset", name, "--ratings", *paths, *flags)
    )


def extend(data_dir, name, paths, *flags):
    return prepare(data_dir, name, paths, *(flags or ("--extend",)))


def write_parts(table, paths):
    """Write the rows of a table, in order, to files of equal size."""
    for path, rows in zip(paths, np.array_split(np.arange(len(table)), len(paths)), strict=True):
        table.iloc[rows].to_csv(path, index=False)
    return paths


def steps_of(folder, kind="numbers", steps=4):
    """Ratings of more and more users and items, in files; a user may come back in any of them."""
    rng = np.random.default_rng(7)
    n = 1500
    time = np.arange(n)
    user = (rng.random(n) * (30 + time / 20)).astype(int)
    item = (rng.random(n) ** 2 * (20 + time / 15)).astype(int)
    table = pd.DataFrame({"userId": user, "movieId": item, "rating": rng.integers(3, 6, n)})
    table["time"] = rng.permutation(n)
    if kind == "text at last":
        table["movieId"] = table.movieId.astype(object)
        table.loc[n - 40 :, "movieId"] = [f"film {i % 7}" for i in range(40)]
    paths = [folder / f"{step}.csv" for step in range(steps)]
    return write_parts(table, paths)


@pytest.mark.parametrize("kind", ["numbers", "text at last"])
@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--min_users_per_item", 3),
        ("--time_col", "time", "--targets", "last", "--split_time", 1000),
        ("--rating_col", "none", "--min_items_per_user", 1),
    ],
    ids=str,
)
def test_many_steps_give_what_one_step_gives(tmp_path, flags, kind):
    first, *rest = steps_of(tmp_path, kind)
    for name in ("many", "one"):
        prepare(tmp_path, name, [first], *BASE, *flags)
    before = open_dataset(tmp_path, "many")
    for path in rest:
        extend(tmp_path, "many", [path])
    extend(tmp_path, "one", rest)
    assert content(tmp_path, "many") == content(tmp_path, "one")

    found, known = open_dataset(tmp_path, "many"), len(before.item_ids)
    assert len(found.item_ids) > known
    assert [*map(str, found.item_ids[:known])] == [*map(str, before.item_ids)]
    assert [*map(str, found.train_user_ids)][: len(before.train_user_ids)] == [
        *map(str, before.train_user_ids)
    ]
    for new, old in zip(found.held_out, before.held_out, strict=True):
        assert (new.fold_in[:, :known] != old.fold_in).nnz == 0
        assert (new.targets[:, :known] != old.targets).nnz == 0
        assert new.fold_in.nnz == old.fold_in.nnz


def test_what_waits_and_what_is_added_are_all_interactions_of_training_users(tmp_path):
    first, *rest = steps_of(tmp_path)
    prepare(tmp_path, "mine", [first], *BASE)
    held_out = open_dataset(tmp_path, "mine").all_user_ids()[-12:].tolist()
    extend(tmp_path, "mine", rest)
    (train, *_), _, waiting = content(tmp_path, "mine")
    table = pd.concat(map(pd.read_csv, (first, *rest)))
    table = table[(table.rating >= 4) & ~table.userId.isin(held_out)]
    expected = set(zip(table.userId, table.movieId, strict=True))
    assert train | waiting == expected
    items = pd.DataFrame(sorted(expected)).groupby(0).size()
    assert {user for user, _ in waiting} == set(items.index[items < 4])


def test_the_same_file_twice_adds_nothing(tmp_path):
    first, second, *_ = steps_of(tmp_path)
    prepare(tmp_path, "mine", [first], *BASE)
    out = extend(tmp_path, "mine", [second])
    assert re.search(r"\d+ new training interactions, [1-9]\d* new users, [1-9]\d* new items", out)
    data, folder = open_dataset(tmp_path, "mine"), prepared_folder(tmp_path, "mine")
    manifest = (folder / "manifest.json").read_bytes()
    out = extend(tmp_path, "mine", [second, first])
    assert f"{folder}: unchanged; the ratings add nothing." in out
    assert (folder / "manifest.json").read_bytes() == manifest
    assert open_dataset(tmp_path, "mine").fingerprint == data.fingerprint


def test_the_data_say_what_they_grew_from_until_they_are_prepared_again(tmp_path):
    first, second, third, _ = steps_of(tmp_path)
    prepare(tmp_path, "mine", [first], *BASE)
    grew_from = {}
    for path in (second, third):
        data = open_dataset(tmp_path, "mine")
        grew_from[data.fingerprint] = data.train.nnz
        extend(tmp_path, "mine", [path])
    assert open_dataset(tmp_path, "mine").grew_from == grew_from
    sources = read_manifest(prepared_folder(tmp_path, "mine")).provenance.sources
    assert [*sources] == [str(path) for path in (first, second, third)]
    assert "Preparing again: it was extended" in prepare(tmp_path, "mine", [first], *BASE)
    assert open_dataset(tmp_path, "mine").fingerprint == next(iter(grew_from))


@pytest.mark.parametrize("heldout_users", [0.2, 8])
def test_new_users_are_held_out_by_the_same_fraction_if_asked(tmp_path, heldout_users):
    first, *rest = steps_of(tmp_path)
    flags = ("--heldout_users", heldout_users, "--min_items_per_user", 4)
    for name in ("many", "one"):
        prepare(tmp_path, name, [first], *flags)
    before = open_dataset(tmp_path, "one")
    for path in rest:
        extend(tmp_path, "many", [path], "--extend", "heldout")
    extend(tmp_path, "one", rest, "--extend", "heldout")
    found = open_dataset(tmp_path, "one")
    assert content(tmp_path, "one")[1][0] == content(tmp_path, "many")[1][0]
    users = found.all_user_ids()
    assert len(np.unique(users)) == len(users)
    new_users = len(users) - len(before.all_user_ids())
    for new, old in zip(found.held_out, before.held_out, strict=True):
        known, more = len(old.user_ids), len(new.user_ids) - len(old.user_ids)
        assert new.user_ids[:known].tolist() == old.user_ids.tolist()
        assert new.fold_in[:known].nnz == old.fold_in.nnz
        assert 0 < more < new_users / 2
        lengths = (new.fold_in + new.targets)[known:].getnnz(axis=1)
        targets = np.where(lengths >= 5, lengths // 5, 0)
        assert new.targets[known:].getnnz(axis=1).tolist() == targets.tolist()


def test_the_settings_of_the_first_preparation_hold_and_others_are_refused(tmp_path):
    first, second, *_ = steps_of(tmp_path)
    prepare(tmp_path, "mine", [first], *BASE, "--threshold", 3)
    out = extend(tmp_path, "mine", [second], "--extend", "--min_items_per_user", 4)
    assert "Extending with the settings of mine: " in out
    assert "--threshold 3.0 --min_items_per_user 4 --heldout_users 6" in out
    disliked = pd.read_csv(second).query("rating == 3")
    (train, *_), _, _ = content(tmp_path, "mine")
    assert train & set(zip(disliked.userId, disliked.movieId, strict=True))
    where = ("--data_dir", tmp_path, "--dataset", "mine", "--ratings", second, "--extend")
    default = error_of(run_prepare(*where, "--threshold", 4))
    assert "--threshold 4.0: mine was prepared with 3.0, which --extend keeps" in default
    rejects = error_of(run_prepare(*where, "--rejects", tmp_path / "rejects.csv"))
    assert "mine was prepared without --drop_missing, so no row is dropped" in rejects
    assert error_of(run_prepare(*where, "--threshold", 5)).endswith(
        "error: --threshold 5.0: mine was prepared with 3.0, which --extend keeps; leave the flag "
        "out, or prepare all ratings again.\n"
    )


@pytest.mark.parametrize("waits", [False, True])
def test_files_without_rows_are_refused_by_name_and_those_without_interactions_add_nothing(
    tmp_path, waits
):
    first, *_ = steps_of(tmp_path)
    # Without a least number of users and items nothing has to wait.
    base = BASE if waits else ("--heldout_users", 6, "--min_items_per_user", 1)
    prepare(tmp_path, "mine", [first], *base, "--drop_missing")
    assert (content(tmp_path, "mine")[2] != set()) == waits
    where = ("--data_dir", tmp_path, "--dataset", "mine", "--extend", "--ratings")
    empty = write(tmp_path / "empty.csv", "userId,movieId,rating\n")
    assert error_of(run_prepare(*where, empty)).endswith(f"error: {empty}: no rows.\n")
    for row in ("1,2,1.0", "1,,5"):
        path = write(tmp_path / "more.csv", f"userId,movieId,rating\n{row}\n")
        out = output_of(run_prepare(*where, path))
        assert "1 rows read, 0 new" in out
        assert "unchanged; the ratings add nothing" in out


def test_lists_grow_by_lists_alone(tmp_path):
    items = " ".join(map(str, range(12)))
    lists = write(tmp_path / "train.txt", "".join(f"{user} {items}\n" for user in range(30)))
    prepare(tmp_path, "lists", [lists], "--format", "lists", "--heldout_users", 3)
    where = ("--data_dir", tmp_path, "--dataset", "lists", "--extend", "--ratings")
    rows = write(tmp_path / "rows.csv", "userId,movieId\n40,1\n")
    assert f"{rows}: no row is a user and items" in error_of(run_prepare(*where, rows))


@pytest.mark.parametrize("name", ["replace", "fsync", "rmtree"])
def test_interrupted_at_any_write_it_leaves_old_or_new_data_and_goes_on(
    tmp_path, monkeypatch, name
):
    first, second, *_ = steps_of(tmp_path)
    prepare(tmp_path, "mine", [first], *BASE)
    shutil.copytree(tmp_path / "mine", tmp_path / "before")
    extend(tmp_path, "mine", [second])
    old, new = (open_dataset(tmp_path, name).fingerprint for name in ("before", "mine"))
    owner = store if name == "rmtree" else os
    function = getattr(owner, name)
    seen, number = {old}, 0
    while new not in seen:
        number += 1
        shutil.rmtree(tmp_path / "mine")
        shutil.copytree(tmp_path / "before", tmp_path / "mine")
        calls = iter(range(number))

        def fail_late(*arguments, calls=calls, **options):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail_late)
            run_prepare(
                "--data_dir", tmp_path, "--dataset", "mine", "--ratings", second, "--extend"
            )
        seen.add(open_dataset(tmp_path, "mine").fingerprint)
    assert seen == {old, new}
    extend(tmp_path, "mine", [second])
    assert open_dataset(tmp_path, "mine").fingerprint == new


def test_data_that_are_not_prepared_are_not_extended(tmp_path):
    paths = steps_of(tmp_path)
    where = ("--data_dir", tmp_path, "--dataset", "mine", "--ratings", paths[0], "--extend")
    assert "holds no prepared data; run python prepare_dataset.py" in error_of(run_prepare(*where))
    assert not (tmp_path / "mine").exists()


def test_published_splits_grow_too(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    first, last = range(5), range(5, 9)
    parts = {"train": ([1, 2], range(9)), "validation_tr": ([3], first), "test_tr": ([4], first)}
    parts |= {"validation_te": ([3], last), "test_te": ([4], last)}
    for name, (users, items) in parts.items():
        rows = "".join(f"{user},{item}\n" for user in users for item in items)
        (folder / f"{name}.csv").write_text(f"uid,sid\n{rows}")
    output_of(run_prepare("--data_dir", tmp_path, "--dataset", "theirs", "--split_dir", folder))
    more = pd.DataFrame({"uid": [1, *[7] * 5, 3, 8], "sid": [77, *range(74, 79), 0, 1]})
    more.to_csv(tmp_path / "more.csv", index=False)
    out = extend(tmp_path, "theirs", [tmp_path / "more.csv"])
    assert "6 new training interactions, 1 new users, 5 new items." in out
    assert "1 interactions wait" in out


def test_files_of_the_golden_format_grow(tmp_path):
    shutil.copytree(GOLDEN, prepared_folder(tmp_path, "golden"))
    before = open_dataset(tmp_path, "golden")
    table = pd.DataFrame({"userId": 10**6, "movieId": before.item_ids[:6], "rating": 5})
    table.to_csv(tmp_path / "new.csv", index=False)
    assert "6 new training interactions, 1 new users, 0" in extend(
        tmp_path, "golden", [tmp_path / "new.csv"]
    )
    found = open_dataset(tmp_path, "golden")
    assert found.train_user_ids.tolist() == [*before.train_user_ids.tolist(), 10**6]
    old_train = {"train": before.train, "train_user_ids": before.train_user_ids}
    assert_same(dataclasses.replace(found, **old_train), before)


def test_the_real_movielens_grows_in_ten_steps_as_in_one(tmp_path, ratings_of_movielens):
    table = pd.read_csv(ratings_of_movielens).sort_values("timestamp", kind="stable")
    paths = write_parts(table, [tmp_path / f"{step}.csv" for step in range(10)])
    for name in ("ten", "one"):
        prepare(tmp_path, name, paths[:1], "--heldout_users", 20)
    for path in paths[1:]:
        extend(tmp_path, "ten", [path])
    extend(tmp_path, "one", paths[1:])
    assert content(tmp_path, "ten") == content(tmp_path, "one")
