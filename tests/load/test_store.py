"""Prepared data on the disk: they come back equal, whole or not at all."""

import dataclasses
import fcntl
import math
import os
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_array, csr_matrix, load_npz, save_npz

from vae.errors import UserError
from vae.load import store
from vae.load.config import Columns
from vae.load.dataset import HeldOut, Split
from vae.load.store import (
    FILES,
    FileDigest,
    Provenance,
    open_dataset,
    prepared_folder,
    read_manifest,
    write_split,
)
from vae.utils.sealed_json import seal

MATRICES = ("train", "validation_fold_in", "validation_targets", "test_fold_in", "test_targets")
IDS = ("item_ids", "train_user_ids", "validation_user_ids", "test_user_ids")
PROVENANCE = Provenance([], Columns("user", "item"), 3.5, {"seed": 0})


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
    )


def fields(data):
    """The matrices and ids of a split or a data set, by the names of their files."""
    matrices = (
        data.train,
        data.validation.fold_in,
        data.validation.targets,
        data.test.fold_in,
        data.test.targets,
    )
    ids = (data.item_ids, data.train_user_ids, data.validation.user_ids, data.test.user_ids)
    return dict(zip(MATRICES, matrices, strict=True)), dict(zip(IDS, ids, strict=True))


def assert_same(one, other):
    (matrices, ids), (other_matrices, other_ids) = fields(one), fields(other)
    for name in MATRICES:
        a, b = matrices[name], other_matrices[name]
        assert (a.shape, a.dtype, a.has_sorted_indices) == (b.shape, b.dtype, b.has_sorted_indices)
        np.testing.assert_array_equal(a.indptr, b.indptr)
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.data, b.data)
    for name in IDS:
        assert ids[name].dtype == other_ids[name].dtype
        np.testing.assert_array_equal(ids[name], other_ids[name])


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


def test_the_manifest_says_what_was_counted_and_lists_every_file(original):
    folder = prepared_folder(original, "set")
    manifest = read_manifest(folder)
    assert (manifest.counts, manifest.provenance) == ({"rows": 12}, PROVENANCE)
    assert {file.path for file in manifest.files} == set(FILES)
    for file in manifest.files:
        assert file == FileDigest.of(folder / file.path, file.path)


def test_two_writings_are_equal_byte_for_byte(tmp_path):
    one, other = (written(tmp_path, make_split(), name) for name in ("one", "other"))
    for name in (*FILES, "manifest.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def changed(split, change):
    """The same split with one thing changed."""
    train, items, validation = split.train, split.item_ids, split.validation
    if change == "an item id":
        items = items + (np.arange(len(items)) == 0)
    elif change == "the order of items":
        items = items[::-1]
    elif change == "the order of columns":
        train = train[:, ::-1].sorted_indices()
    elif change == "an interaction":
        train = csr_matrix(train.toarray() ^ np.eye(*train.shape, dtype=np.uint8))
    elif change == "a user's id":
        validation = HeldOut(validation.fold_in, validation.targets, validation.user_ids + 1)
    elif change == "the targets":
        validation = HeldOut(validation.targets, validation.fold_in, validation.user_ids)
    return Split(train, split.train_user_ids, items, validation, split.test, split.counts)


@pytest.mark.parametrize(
    "change",
    [
        "an item id",
        "the order of items",
        "the order of columns",
        "an interaction",
        "a user's id",
        "the targets",
    ],
)
def test_the_fingerprint_changes_with(tmp_path, change):
    split = make_split()
    written(tmp_path, split, "one")
    written(tmp_path, changed(split, change), "other")
    assert open_dataset(tmp_path, "one").fingerprint != open_dataset(tmp_path, "other").fingerprint


def test_a_folder_without_prepared_data_says_how_to_prepare_them(tmp_path):
    sentence = f"run python prepare_dataset.py --data_dir {tmp_path} --dataset set first"
    assert sentence in refusal(tmp_path)
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
        (store, "save_npz"),
        (store.np, "save"),
        (store, "sha256"),
        (store, "sync"),
        (Path, "write_text"),
        (Path, "unlink"),
        (Path, "replace"),
    ):
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    return seen, fail


def test_the_manifest_is_removed_before_any_file_changes_and_written_after_all(tmp_path, steps):
    seen, _ = steps
    folder = written(tmp_path, make_split())
    moves = [(name, args) for name, args in seen if name in ("unlink", "replace")]
    targets = [args[-1] for _, args in moves]
    assert moves[0] == ("unlink", (folder / "manifest.json",))
    assert targets[-1] == folder / "manifest.json"
    assert {path.name for path in targets[1:-1]} == set(FILES)
    synced = {args[0].name.split("-", 2)[2] for name, args in seen if name == "sync"}
    assert synced == {*FILES, "manifest.json"}
    assert {path.name for path in folder.iterdir()} == synced


def count_steps(tmp_path, steps):
    seen, _ = steps
    written(tmp_path / "count", make_split())
    count = len(seen)
    seen.clear()
    return count


def test_a_crash_at_any_step_leaves_nothing_prepared(tmp_path, steps):
    seen, fail = steps
    for step in range(1, count_steps(tmp_path, steps) + 1):
        seen.clear()
        fail.update({"at": step, "with": Crash()})
        with pytest.raises(Crash):
            written(tmp_path, make_split())
        fail.clear()
        assert "holds no prepared data" in refusal(tmp_path)
        assert not list(prepared_folder(tmp_path, "set").glob(".*"))
    written(tmp_path, make_split())
    assert_same(open_dataset(tmp_path, "set"), make_split())


def test_a_crash_at_any_step_of_a_replacement_leaves_the_old_data_or_none(tmp_path, steps):
    seen, fail = steps
    old, new = make_split(1), make_split(2)
    kept, lost = 0, 0
    for step in range(1, count_steps(tmp_path, steps) + 1):
        written(tmp_path, old)
        seen.clear()
        fail.update({"at": step, "with": Crash()})
        with pytest.raises(Crash):
            written(tmp_path, new)
        fail.clear()
        if read_manifest(prepared_folder(tmp_path, "set")) is None:
            lost += 1
            assert "holds no prepared data" in refusal(tmp_path)
        else:
            kept += 1
            assert_same(open_dataset(tmp_path, "set"), old)
    # Lost only while the ten files take the old ones' places.
    assert lost == len(FILES) + 1
    assert kept > 20


def test_a_full_disk_at_any_step_is_one_sentence_and_leaves_nothing(tmp_path, steps):
    seen, fail = steps
    for step in range(1, count_steps(tmp_path, steps) + 1):
        seen.clear()
        fail.update({"at": step, "with": OSError(28, "No space left on device")})
        with pytest.raises(UserError, match=r"written \(No space left on device\)\.$") as caught:
            written(tmp_path, make_split())
        fail.clear()
        assert caught.value.exit_code == 1
        assert "holds no prepared data" in refusal(tmp_path)
        assert not list(prepared_folder(tmp_path, "set").glob(".*"))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    path = prepared_folder(copy, "set") / name
    path.unlink()
    assert refusal(copy) == f"{path}: is missing; run prepare_dataset.py again."


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FILES), st.booleans(), st.data())
def test_a_damaged_file_is_named_wherever_it_is_damaged(
    original, tmp_path_factory, name, truncate, data
):
    path = prepared_folder(original, "set") / name
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


@settings(max_examples=200, deadline=None)
@given(st.booleans(), st.data())
def test_a_manifest_with_any_byte_changed_is_named(original, truncate, data):
    path = prepared_folder(original, "set") / "manifest.json"
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


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '"text"', "{}", '{"format_version": 4}'])
def test_a_manifest_that_is_none_is_named(copy, text):
    path = prepared_folder(copy, "set") / "manifest.json"
    path.write_text(text)
    sentence = refusal(copy)
    assert sentence.startswith(f"{path}: is damaged (")
    assert sentence.endswith("; remove it and run prepare_dataset.py again.")


GONE = object()
NO_STRING = (GONE, None, 7, True, ["user"], {})
SOUND_FILE = {"path": "train.npz", "bytes": 7, "sha256": "0" * 64}


def listed(names=FILES, **changes):
    return [without_gone(SOUND_FILE | {"path": name} | changes) for name in names]


def without_gone(values):
    return {name: value for name, value in values.items() if value is not GONE}


def provenance(**changes):
    return without_gone(asdict(PROVENANCE) | changes)


def columns(**changes):
    return provenance(columns=without_gone(asdict(PROVENANCE.columns) | changes))


WRONG = {
    "fingerprint": (*NO_STRING, "short", "x" * 64),
    "counts": (GONE, None, 7, [], {"rows": "12"}, {"rows": True}),
    "provenance": (
        *NO_STRING,
        [],
        *(provenance(columns=value) for value in (*NO_STRING, "user")),
        *(columns(user=value) for value in NO_STRING),
        *(columns(item=value) for value in NO_STRING),
        *(columns(rating=value) for value in NO_STRING if value is not None),
        *(columns(separator=value) for value in (GONE, 7, True, [","], "", "a\tb", "é", "\n", '"')),
        *(columns(quoting=value) for value in NO_STRING),
        *(provenance(threshold=value) for value in (GONE, None, "4", True, [4.0], math.nan)),
        *(provenance(threshold=value) for value in (math.inf, 10**400)),
        *(provenance(flags=value) for value in (GONE, None, 7, "text", [])),
        *(provenance(sources=value) for value in (GONE, None, 7, "text", [7], [{}])),
        *(provenance(sources=listed(sha256=value)) for value in (7, None, "short")),
    ),
    "files": (
        *NO_STRING,
        [*FILES],
        [None] * len(FILES),
        [{}] * len(FILES),
        listed(bytes="7"),
        listed(bytes=True),
        listed(sha256=None),
        listed(more=7),
        listed([*FILES[1:], "../train.npz"]),
        listed([*FILES, "/etc/passwd"]),
        listed([*FILES, FILES[0]]),
    ),
    "format_version": (4.0,),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_manifest_of_wrong_types_or_impossible_values_is_damaged(original, tmp_path, name):
    sound = asdict(read_manifest(prepared_folder(original, "set")))
    folder = prepared_folder(tmp_path, "set")
    folder.mkdir(parents=True)
    for value in WRONG[name]:
        (folder / "manifest.json").write_text(seal(without_gone(sound | {name: value})))
        sentence = refusal(tmp_path)
        assert sentence.startswith(f"{folder / 'manifest.json'}: is damaged ("), value
        assert len(sentence) < 300 + 2 * len(str(folder))


def test_files_of_two_preparations_do_not_mix(copy, tmp_path):
    other = written(tmp_path / "other", make_split(1))
    path = prepared_folder(copy, "set") / "train.npz"
    shutil.copy(other / "train.npz", path)
    assert refusal(copy).startswith(f"{path}: ")


def rewrite_manifest(folder, **changes):
    """Vouch for the files as they are, in a sound manifest with these values changed."""
    files = [FileDigest.of(folder / name, name) for name in FILES]
    manifest = asdict(dataclasses.replace(read_manifest(folder), files=files)) | changes
    (folder / "manifest.json").write_text(seal(manifest))


@pytest.mark.parametrize("version", [0, 3, 999, "3", None])
def test_the_format_of_another_program_is_refused(copy, version):
    folder = prepared_folder(copy, "set")
    rewrite_manifest(folder, format_version=version)
    assert refusal(copy) == (
        f"{folder / 'manifest.json'}: was written in format {version}, this program reads 4; "
        "remove it and run prepare_dataset.py again."
    )


class Pickled:
    """What runs a command when it is unpickled."""

    loaded = False

    def __reduce__(self):
        return (setattr, (Pickled, "loaded", True))


def test_a_pickle_among_the_ids_is_not_loaded(copy):
    folder = prepared_folder(copy, "set")
    np.save(folder / "item_ids.npy", np.array([Pickled()]), allow_pickle=True)
    rewrite_manifest(folder)
    assert "cannot be opened (" in refusal(copy)
    assert not Pickled.loaded


def test_a_pickle_inside_a_matrix_is_not_loaded(copy):
    folder = prepared_folder(copy, "set")
    np.save(folder / "data.npy", np.array([Pickled()]), allow_pickle=True)
    with zipfile.ZipFile(folder / "train.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["data.npy"] = (folder / "data.npy").read_bytes()
    with zipfile.ZipFile(folder / "train.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    rewrite_manifest(folder)
    assert "cannot be opened (" in refusal(copy)
    assert not Pickled.loaded


def test_what_a_killed_preparation_left_is_removed_by_the_next(copy):
    folder = prepared_folder(copy, "set")
    (folder / ".writing-0123-train.npz").write_bytes(b"half of it")
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


@pytest.mark.parametrize("name", ["manifest.json", "train.npz", ".writing-0123-train.npz"])
def test_a_link_in_a_shared_folder_is_not_followed(tmp_path, name):
    precious = tmp_path / "precious.txt"
    precious.write_text("of somebody else")
    folder = prepared_folder(tmp_path, "set")
    folder.mkdir(parents=True)
    (folder / name).symlink_to(precious)
    with store.locked(folder):
        written(tmp_path, make_split())
    assert precious.read_text() == "of somebody else"
    assert not [path for path in folder.iterdir() if path.is_symlink()]
    assert_same(open_dataset(tmp_path, "set"), make_split())


@pytest.mark.parametrize("name", ["manifest.json", "train.npz", "item_ids.npy"])
def test_a_pipe_in_the_place_of_a_file_hangs_nothing(tmp_path, name):
    folder = written(tmp_path, make_split())
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=rf"{name}: (cannot be read|is missing)"):
        open_dataset(tmp_path, "set")


def test_data_that_are_prepared_again_while_they_are_opened_are_refused(copy, monkeypatch):
    def load_after_another_preparation(path):
        monkeypatch.setattr(store, "load_npz", load_npz)
        written(copy, make_split(1))
        return load_npz(path)

    monkeypatch.setattr(store, "load_npz", load_after_another_preparation)
    with pytest.raises(UserError, match="was prepared again while it was being opened"):
        open_dataset(copy, "set")
    assert_same(open_dataset(copy, "set"), make_split(1))


def replace_by_sound_file(folder, change):
    """Puts a file in place that is sound by itself, and has the manifest say so."""
    items, users = 7, 9
    if change == "fewer users":
        save_npz(folder / "train.npz", csr_matrix((users - 1, items), dtype=np.uint8))
    elif change == "more items":
        save_npz(folder / "test_targets.npz", csr_matrix((4, items + 1), dtype=np.uint8))
    elif change == "a matrix by columns":
        save_npz(folder / "train.npz", csc_matrix((users, items), dtype=np.uint8))
    elif change == "a sparse array":
        save_npz(folder / "train.npz", csr_array((users, items), dtype=np.uint8))
    elif change == "an archive without a matrix":
        np.savez(folder / "train.npz", data=np.arange(items))
    elif change == "an array":
        with (folder / "train.npz").open("wb") as file:
            np.save(file, np.zeros((users, items), np.uint8))
    elif change == "fewer ids":
        np.save(folder / "item_ids.npy", np.arange(items - 1))
    elif change == "ids in a table":
        np.save(folder / "item_ids.npy", np.arange(items)[:, None])
    elif change == "ids that are fractions":
        np.save(folder / "item_ids.npy", np.arange(items) / 2)
    elif change == "an archive of ids":
        with (folder / "item_ids.npy").open("wb") as file:
            np.savez(file, *np.arange(items))
    else:
        indices = {
            "an item index too large": [0, items],
            "an interaction twice": [3, 3],
            "no order": [3, 2],
        }
        matrix = csr_matrix((users, items), dtype=np.uint8)
        matrix.data = np.array([1, 1 + (change == "a number")], np.uint8)
        matrix.indices = np.array(indices.get(change, [2, 3]), np.int32)
        matrix.indptr = np.array([0] + [2] * users, np.int32)
        save_npz(folder / "train.npz", matrix)
    rewrite_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        "fewer users",
        "more items",
        "a matrix by columns",
        "a sparse array",
        "an archive without a matrix",
        "an array",
        "fewer ids",
        "ids in a table",
        "ids that are fractions",
        "an archive of ids",
        "an item index too large",
        "an interaction twice",
        "no order",
        "a number",
    ],
)
def test_files_that_do_not_fit_together_are_refused(copy, change):
    folder = prepared_folder(copy, "set")
    replace_by_sound_file(folder, change)
    assert refusal(copy).startswith(f"{folder}: cannot be opened (")


def test_a_file_in_place_of_the_folder_is_no_prepared_data(tmp_path):
    (tmp_path / "set").write_text("")
    assert "holds no prepared data" in refusal(tmp_path)


def test_a_manifest_that_cannot_be_read_is_not_called_damaged(copy):
    path = prepared_folder(copy, "set") / "manifest.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read \(Is a directory\)"):
        open_dataset(copy, "set")


@pytest.mark.parametrize(
    ("name", "sound", "damaged"),
    [
        ("item_ids.npy", b"(7,)", b"(7,("),
        ("train.npz", b"'shape': (10,)", b"'shape': (10,("),
        ("train.npz", b"PK\x05\x06", b"PK\x05\x05"),
        ("train.npz", b"PK\x01\x02-\x03-", b"PK\x01\x02-\x03\xff"),
        ("train.npz", b"PK\x03\x04", b""),
    ],
    ids=["a header", "a member's header", "the archive's end", "its version", "its start"],
)
def test_what_fuzzing_broke_once_is_refused(copy, name, sound, damaged):
    folder = prepared_folder(copy, "set")
    content = (folder / name).read_bytes()
    assert sound in content
    (folder / name).write_bytes(content.replace(sound, damaged))
    rewrite_manifest(folder)
    assert refusal(copy).startswith(f"{folder}: cannot be opened (")
