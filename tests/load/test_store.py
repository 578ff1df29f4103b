"""Prepared data on the disk: they come back equal, whole or not at all."""

import dataclasses
import fcntl
import json
import os
import shutil
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from vae.errors import UserError
from vae.load import store
from vae.load.config import Columns
from vae.load.dataset import HeldOut, Split
from vae.load.store import (
    FILES,
    Provenance,
    open_dataset,
    prepared_folder,
    read_manifest,
    write_split,
)
from vae.utils.atomic import sha256
from vae.utils.sealed_json import seal

EMPTY = {"format_version": store.FORMAT_VERSION, "files": {}}
PROVENANCE = Provenance({}, Columns("user", "item"), 3.5, {"seed": 0})


def make_split(seed=0, items=7, users=(9, 3, 4), strings=False, fill=0.5):
    rng = np.random.default_rng(seed)

    def matrix(users):
        return csr_matrix(rng.random((users, items)) < fill, dtype=np.uint8)

    def ids(count, first):
        numbers = np.arange(first, first + count)
        return np.array([f"ü{number}" for number in numbers]) if strings else numbers

    train, validation, test = users
    return Split(
        matrix(train),
        ids(train, 100),
        ids(items, 10),
        HeldOut(matrix(validation), matrix(validation), ids(validation, 200)),
        HeldOut(matrix(test), matrix(test), ids(test, 300)),
        {"rows": 12},
        pa.table({"user": [1, 1], "item": [2, 3]}) if seed % 2 else None,
    )


def fields(data):
    """The matrices and ids of a split or a data set, by their attributes."""
    return {name: attrgetter(name)(data) for name in (*store._MATRICES, *store._IDS)}


def assert_same(one, other):
    one, other = fields(one), fields(other)
    for name in one:
        assert one[name].dtype == other[name].dtype
        if name.endswith("ids"):
            np.testing.assert_array_equal(one[name], other[name])
        else:
            assert one[name].shape == other[name].shape
            for part in ("indptr", "indices", "data"):
                np.testing.assert_array_equal(getattr(one[name], part), getattr(other[name], part))


def written(data_dir, split, name="set"):
    """Writes a split as a data set; returns its folder."""
    folder = prepared_folder(data_dir, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_split(folder, split, PROVENANCE)
    return folder


def refusal(data_dir, name="set"):
    with pytest.raises(UserError) as caught:
        open_dataset(data_dir, name)
    assert caught.value.exit_code == 2
    assert "prepare_dataset.py" in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A prepared data set; tests damage copies of it."""
    data_dir = tmp_path_factory.mktemp("original")
    written(data_dir, make_split())
    return data_dir


@pytest.fixture
def copy(original, tmp_path):
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        make_split,
        seed=st.integers(0, 99),
        items=st.integers(1, 9),
        users=st.tuples(*[st.integers(1, 5)] * 3),
        strings=st.booleans(),
        fill=st.sampled_from([0.0, 0.3, 1.0]),
    )
)
def test_what_was_written_is_opened(tmp_path_factory, split):
    data_dir = tmp_path_factory.getbasetemp() / "round"
    written(data_dir, split)
    data = open_dataset(data_dir, "set")
    assert data.name == "set"
    assert (data.columns, data.threshold) == (Columns("user", "item"), 3.5)
    assert_same(data, split)


def test_the_manifest_says_what_was_counted_and_has_the_digest_of_every_file(original):
    folder = prepared_folder(original, "set")
    manifest = read_manifest(folder)
    assert (manifest.counts, manifest.provenance) == ({"rows": 12}, PROVENANCE)
    assert manifest.files == {name: sha256(folder / "data-0" / name) for name in FILES}


def test_two_writings_are_equal_byte_for_byte(tmp_path):
    one, other = (written(tmp_path, make_split(), name) for name in ("one", "other"))
    for name in (*FILES, "../manifest.json"):
        assert (one / "data-0" / name).read_bytes() == (other / "data-0" / name).read_bytes()


def fingerprint(data_dir, split, **changes):
    written(data_dir, dataclasses.replace(split, **changes))
    return open_dataset(data_dir, "set").fingerprint


def test_the_fingerprint_changes_with_any_content(tmp_path):
    split = make_split()
    train, ids, held_out = split.train, split.item_ids, split.validation
    other = csr_matrix(train.toarray() ^ np.eye(*train.shape, dtype=np.uint8))
    changes = [
        {},
        {"item_ids": ids + (np.arange(len(ids)) == 0)},
        {"item_ids": ids[::-1]},
        {"train": train[:, ::-1].sorted_indices()},
        {"train": other},
        {"validation": dataclasses.replace(held_out, user_ids=held_out.user_ids + 1)},
        {"validation": HeldOut(held_out.targets, held_out.fold_in, held_out.user_ids)},
    ]
    found = [fingerprint(tmp_path, split, **change) for change in changes]
    assert len(set(found)) == len(changes)
    assert fingerprint(tmp_path, split, counts={"rows": 13}) == found[0]


def test_a_folder_without_prepared_data_says_how_to_prepare_them(tmp_path):
    sentence = f"run python prepare_dataset.py --data_dir {tmp_path} --dataset set first"
    assert sentence in refusal(tmp_path)
    (tmp_path / "set").touch()
    assert sentence in refusal(tmp_path)
    (tmp_path / "set").unlink()
    prepared_folder(tmp_path, "set").mkdir(parents=True)
    assert sentence in refusal(tmp_path)


class Crash(BaseException):
    """What ends a program and is no error that it handles."""


@pytest.fixture
def steps(monkeypatch):
    """Names every step of writing in a list; raises at the one whose number ``fail`` returns."""
    seen, fail = [], {}

    def watched(name, function):
        def step(*args, **kwargs):
            seen.append((name, args))
            if len(seen) == fail.get("at"):
                raise fail["with"]
            return function(*args, **kwargs)

        return step

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for owner, name in (
        (store.np, "save"),
        (store, "sha256"),
        (store, "sync"),
        (store.pq, "write_table"),
        (store, "rmtree"),
        (Path, "write_bytes"),
        (Path, "unlink"),
        (Path, "replace"),
    ):
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    return seen, fail


def test_every_file_is_flushed_and_in_its_place_before_the_manifest_is(tmp_path, steps):
    seen, _ = steps
    for name, split in (("data-0", make_split(1)), ("data-1", make_split(2))):
        seen.clear()
        folder = written(tmp_path, split)
        moves = [args[-1] for step, args in seen if step == "replace"]
        assert moves == [folder / name, folder / "manifest.json"]
        flushed = [args[0].name for step, args in seen if step == "sync"]
        waiting = {"waiting.parquet"} if split.waiting is not None else set()
        assert {*FILES, *waiting, name, "preprocessed"} == set(flushed)
        assert sorted(path.name for path in folder.iterdir()) == [name, "manifest.json"]
        assert {path.name for path in (folder / name).iterdir()} == {*FILES, *waiting}


def count_steps(tmp_path, steps):
    seen, _ = steps
    written(tmp_path / "count", make_split(3))
    count = len(seen)
    seen.clear()
    return count


def test_a_full_disk_at_any_step_leaves_what_was_there(tmp_path, steps):
    seen, fail = steps
    steps_in_all = count_steps(tmp_path, steps)
    for old in (None, make_split(1)):
        for step in range(1, steps_in_all + 1):
            if old is not None:
                written(tmp_path, old)
            seen.clear()
            fail.update({"at": step, "with": OSError(28, "No space left on device")})
            with pytest.raises(UserError, match=r"cannot be written .No space left on") as caught:
                written(tmp_path, make_split(3))
            assert caught.value.exit_code == 1
            fail.clear()
            assert not list(prepared_folder(tmp_path, "set").glob(".*"))
            if seen[-1][0] not in ("rmtree", "unlink"):  # with the new manifest in its place
                if old is None:
                    assert "holds no prepared data" in refusal(tmp_path)
                else:
                    assert_same(open_dataset(tmp_path, "set"), old)


def test_a_crash_at_any_step_of_a_replacement_leaves_the_old_or_the_new_data(tmp_path, steps):
    seen, fail = steps
    old, new = make_split(1), make_split(3)
    found = []
    for step in range(1, count_steps(tmp_path, steps) + 1):
        written(tmp_path, old)
        seen.clear()
        fail.update({"at": step, "with": Crash()})
        with pytest.raises(Crash):
            written(tmp_path, new)
        fail.clear()
        data = open_dataset(tmp_path, "set")
        found.append(data.train.nnz == new.train.nnz)
        assert_same(data, new if found[-1] else old)
        written(tmp_path, old)  # over what the crash left
        assert_same(open_dataset(tmp_path, "set"), old)
    assert found == sorted(found)
    assert 30 < found.count(False) < len(found)


def test_opened_matrices_are_mapped_and_outlive_their_replacement(tmp_path):
    written(tmp_path, make_split(1))
    data = open_dataset(tmp_path, "set")
    mapped = Path("/proc/self/maps").read_text()
    for name in (name for name in FILES if not name.endswith("_ids.npy")):
        assert str(prepared_folder(tmp_path, "set") / "data-0" / name) in mapped
    written(tmp_path, make_split(2))
    assert_same(data, make_split(1))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    path = prepared_folder(copy, "set") / "data-0" / name
    path.unlink()
    assert refusal(copy) == f"{path}: is missing; run prepare_dataset.py again."


@settings(max_examples=200, deadline=None)
@given(st.sampled_from((*FILES, "../manifest.json")), st.booleans(), st.data())
def test_a_damaged_file_is_named_wherever_it_is_damaged(original, name, truncate, data):
    path = Path(os.path.normpath(prepared_folder(original, "set") / "data-0" / name))
    sound = path.read_bytes()
    place = data.draw(st.integers(0, len(sound) - 1))
    damaged = bytearray(sound)
    if truncate:
        del damaged[place:]
    else:
        damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        assert refusal(original).startswith(f"{path}: ")
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format_version": 6}', seal(EMPTY)])
def test_a_manifest_that_is_none_is_named(copy, text):
    path = prepared_folder(copy, "set") / "manifest.json"
    path.write_text(text)
    sentence = refusal(copy)
    assert sentence.startswith(f"{path}: is damaged (")
    assert sentence.endswith("; remove it and run prepare_dataset.py again.")


def test_files_of_two_preparations_do_not_mix(copy, tmp_path):
    other = written(tmp_path / "other", make_split(1))
    path = prepared_folder(copy, "set") / "data-0/train_indices.npy"
    shutil.copy(other / "data-0/train_indices.npy", path)
    assert refusal(copy).startswith(f"{path}: ")


def rewrite_manifest(folder, /, **changes):
    """Vouch for the files as they are, in a sound manifest with these values changed."""
    path = folder / "manifest.json"
    files = {name: sha256(folder / "data-0" / name) for name in FILES}
    path.write_text(seal(json.loads(path.read_text()) | {"files": files} | changes))


@pytest.mark.parametrize("names", [[*FILES][1:], (*FILES, "../train_indices.npy"), ["/etc/passwd"]])
def test_a_manifest_that_names_other_files_is_damaged(copy, names):
    rewrite_manifest(prepared_folder(copy, "set"), files=dict.fromkeys(names, "0" * 64))
    assert "manifest.json: is damaged (it does not list the prepared files)" in refusal(copy)


def test_a_manifest_that_names_another_folder_is_damaged(copy):
    rewrite_manifest(prepared_folder(copy, "set"), folder="../../other")
    assert "manifest.json: is damaged (its folder is another)" in refusal(copy)


@pytest.mark.parametrize("version", [5, 999, None])
def test_the_format_of_another_program_is_refused(copy, version):
    folder = prepared_folder(copy, "set")
    rewrite_manifest(folder, format_version=version)
    assert refusal(copy) == (
        f"{folder / 'manifest.json'}: was written in format {version}, this program reads 6; "
        "remove it and run prepare_dataset.py again."
    )


class Pickled:
    """What runs a command when it is unpickled."""

    loaded = False

    def __reduce__(self):
        return (setattr, (Pickled, "loaded", True))


@pytest.mark.parametrize("name", ["item_ids.npy", "train_indices.npy"])
def test_a_pickle_among_the_ids_or_inside_a_matrix_is_not_loaded(copy, name):
    folder = prepared_folder(copy, "set")
    np.save(folder / "data-0" / name, np.array([Pickled()]), allow_pickle=True)
    rewrite_manifest(folder)
    assert "cannot be opened (" in refusal(copy)
    assert not Pickled.loaded


def test_what_a_killed_preparation_left_is_removed_by_the_next(copy):
    folder = prepared_folder(copy, "set")
    (folder / ".writing-0123").mkdir()
    (folder / ".writing-0123/train_indices.npy").write_bytes(b"half of it")
    with store.locked(folder):
        assert not list(folder.glob(".*"))
    open_dataset(copy, "set")


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    written(tmp_path, make_split())
    with store.locked(prepared_folder(tmp_path, "set")):
        open_dataset(tmp_path, "set")


@pytest.mark.parametrize("place", ["link", "file"])
def test_a_link_in_a_shared_folder_is_not_followed_and_a_file_there_replaced(tmp_path, place):
    precious = tmp_path / "precious.txt"
    precious.write_text("of somebody else")
    folder = prepared_folder(tmp_path, "set")
    folder.mkdir(parents=True)
    (folder / "manifest.json").symlink_to(precious)
    if place == "link":
        (folder / "data-0").symlink_to(tmp_path)
    else:
        (folder / "data-0").touch()
    with store.locked(folder):
        written(tmp_path, make_split())
    assert precious.read_text() == "of somebody else"
    assert not [path for path in folder.iterdir() if path.is_symlink()]
    assert_same(open_dataset(tmp_path, "set"), make_split())


@pytest.mark.parametrize("name", ["manifest.json", "train_indices.npy", "item_ids.npy"])
def test_a_pipe_in_the_place_of_a_file_hangs_nothing(tmp_path, name):
    folder = written(tmp_path, make_split())
    folder = folder if name == "manifest.json" else folder / "data-0"
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=rf"{name}: (cannot be read|is missing)"):
        open_dataset(tmp_path, "set")


def test_data_that_are_prepared_again_while_they_are_opened_are_refused(copy, monkeypatch):
    def load_after_another_preparation(path, **kwargs):
        monkeypatch.undo()
        written(copy, make_split(1))
        return np.load(path, **kwargs)

    monkeypatch.setattr(np, "load", load_after_another_preparation)
    with pytest.raises(UserError, match="was prepared again while it was being opened"):
        open_dataset(copy, "set")
    assert_same(open_dataset(copy, "set"), make_split(1))
