"""prepare_dataset.py from the command line: what it prepares, says, refuses and leaves behind."""

import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, run_prepare, run_script

from vae.errors import UserError
from vae.load import prepare as module
from vae.load.store import open_dataset, prepared_folder, read_manifest

HELD_OUT = ("--heldout_users", 3)


@pytest.fixture(scope="session")
def rows():
    """Rows of 30 users and 20 items that every filter leaves something of."""
    rng = np.random.default_rng(0)
    interactions = [(user, item) for user in range(30) for item in range(20) if rng.random() < 0.6]
    return [f"{user},{item},{rng.integers(2, 11) / 2}" for user, item in interactions]


def write(path, rows):
    path.write_text("\n".join(["userId,movieId,rating", *rows]) + "\n")
    return path


@pytest.fixture
def ratings(tmp_path, rows):
    """A ratings file of 30 users and 20 items."""
    return write(tmp_path / "ratings.csv", rows)


@pytest.fixture
def flags(tmp_path, ratings):
    return ("--data_dir", tmp_path, "--dataset", "mine", "--ratings", ratings, *HELD_OUT)


def prepare(*flags):
    """What a successful run says, line by line, without what takes the place of the bars."""
    done = run_prepare(*flags)
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if not line.endswith(" ...")]


def refusal(*flags):
    """The sentence of a run that fails because of its input or flags."""
    done = run_prepare(*flags)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("prepare_dataset.py: error: ")
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("prepare_dataset.py: error: ").rstrip("\n")


@pytest.fixture(scope="session")
def once(tmp_path_factory, rows):
    """A folder in which the ratings are prepared, for tests to copy."""
    folder = tmp_path_factory.mktemp("once")
    path = write(folder / "ratings.csv", rows)
    prepare("--data_dir", folder, "--dataset", "mine", "--ratings", path, *HELD_OUT)
    return folder


@pytest.fixture
def prepared(tmp_path, once, flags):
    """The folder of prepared data, and their digest."""
    shutil.copytree(once / "mine", tmp_path / "mine")
    return prepared_folder(tmp_path, "mine"), open_dataset(tmp_path, "mine").fingerprint


def state(folder):
    """Everything that a second run could change."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_file_is_prepared_and_its_counts_are_printed(tmp_path, flags, rows):
    said = prepare(*flags)
    data = open_dataset(tmp_path, "mine")
    counts = read_manifest(prepared_folder(tmp_path, "mine")).counts
    kept = sum(float(row.split(",")[2]) >= 4 for row in rows)
    assert said[0] == f"{len(rows):,} rows read, {kept:,} kept with a rating of at least 4."
    assert said[1] == f"{kept:,} distinct interactions; 0 duplicates dropped."
    assert said[-1] == f"Prepared {prepared_folder(tmp_path, 'mine')}."
    assert data.train.shape == (counts["users"] - 6, counts["items"])
    assert data.validation.fold_in.shape == data.test.targets.shape == (3, counts["items"])
    assert f"Training: {data.train.shape[0]} users, " in said[3]


def test_a_second_run_says_so_and_changes_nothing(flags, prepared):
    folder, _ = prepared
    before = state(folder)
    assert prepare(*flags) == [
        f"{folder} is already prepared from the same ratings with the same parameters."
    ]
    assert state(folder) == before


def test_what_changed_is_told_and_prepared_again(tmp_path, flags, prepared, ratings, rows):
    _, digest = prepared
    again = "Preparing again: "
    changed = prepare(*flags, "--seed", 1, "--threshold", 3.5)[0]
    assert changed == f"{again}--threshold changed from 4.0 to 3.5; --seed changed from 0 to 1."
    assert open_dataset(tmp_path, "mine").fingerprint != digest
    # Neither the order of the rows nor --force changes the data.
    write(ratings, reversed(rows))
    assert prepare(*flags)[0].endswith(f"{ratings} has changed since it was last prepared.")
    assert open_dataset(tmp_path, "mine").fingerprint == digest
    assert prepare(*flags, "--force")[0] == f"{again}--force is set."
    assert open_dataset(tmp_path, "mine").fingerprint == digest


@pytest.mark.parametrize("change", ["replaced", "written to", "removed"])
def test_ratings_that_change_while_they_are_read_are_refused(
    tmp_path, flags, ratings, rows, monkeypatch, change
):
    other = write(tmp_path / "other.csv", rows[::-1])
    read = module.read_interactions

    def read_and_change(*arguments, **options):
        found = read(*arguments, **options)
        if change == "replaced":
            other.replace(ratings)
        elif change == "written to":
            ratings.write_bytes(other.read_bytes())
        else:
            ratings.unlink()
        return found

    monkeypatch.setattr(module, "read_interactions", read_and_change)
    sentence = refusal(*flags)
    if change != "removed":
        assert sentence == f"{ratings}: changed while it was read; run the same command again."
    assert read_manifest(prepared_folder(tmp_path, "mine")) is None


@pytest.mark.parametrize("damage", ["a byte", "the length", "a missing file", "the manifest"])
def test_running_again_replaces_damaged_data(tmp_path, flags, prepared, damage):
    folder, digest = prepared
    path = folder / "data-0/test_targets_indices.npy"
    content = bytearray(path.read_bytes())
    if damage == "a byte":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "the length":
        path.write_bytes(content[:-1])
    elif damage == "a missing file":
        path.unlink()
    else:
        path = folder / "manifest.json"
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"run prepare_dataset\.py again"):
        open_dataset(tmp_path, "mine")
    said = prepare(*flags)
    assert said[0].startswith("Preparing again: ")
    assert path.name in said[0]
    assert open_dataset(tmp_path, "mine").fingerprint == digest


def test_other_columns_separators_and_compression_are_read(tmp_path, rows):
    path = tmp_path / "likes.tsv.gz"
    rows = [row.rsplit(",", 1)[0] for row in rows]
    lines = ["who\twhen\twhat", *("u" + row.replace(",", "\tnow\ti", 1) for row in rows)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    columns = ("--user_col", "who", "--item_col", "what", "--rating_col", "none")
    where = ("--data_dir", tmp_path, "--dataset", "likes", "--ratings", path)
    said = prepare(*where, *columns, *HELD_OUT)
    assert said[0] == f"{len(rows)} rows read, {len(rows)} kept."
    data = open_dataset(tmp_path, "likes")
    assert set(data.item_ids.tolist()) <= {f"i{item}" for item in range(20)}
    users = [*data.train_user_ids, *data.validation.user_ids, *data.test.user_ids]
    assert len(set(users)) == 30


def test_several_files_and_folders_are_prepared_as_one(tmp_path, prepared, rows):
    flags = ("--data_dir", tmp_path, "--dataset", "mine", *HELD_OUT)
    parts = tmp_path / "parts"
    parts.mkdir()
    write(parts / "part-1.csv", rows[200:])
    (parts / "_SUCCESS").touch()
    table = pd.DataFrame([row.split(",") for row in rows[:200]])
    table.columns = ["userId", "movieId", "rating"]
    table.astype({"userId": "int64", "rating": "float32"}).to_parquet(tmp_path / "more.parquet")
    given = [parts, tmp_path / "more.parquet"]
    said = prepare(*flags, "--ratings", *given)
    assert said[0] == (
        f"Preparing again: {parts / 'part-1.csv'} (and 1 more) has changed since it was last "
        "prepared."
    )
    assert open_dataset(tmp_path, "mine").fingerprint == prepared[1]
    sources = read_manifest(prepared_folder(tmp_path, "mine")).provenance.sources
    assert [*sources] == [str(parts / "part-1.csv"), str(given[1])]
    assert "is already prepared" in prepare(*flags, "--ratings", *given)[0]


def test_without_ratings_the_file_lies_where_movielens_unpacks(tmp_path, ratings, monkeypatch):
    sentence = refusal("--data_dir", tmp_path / "my data")
    assert "--download" in sentence
    assert "--ratings" in sentence
    assert not (tmp_path / "my data").exists()
    place = tmp_path / "my data/ml-20m/extracted/ml-20m/ratings.csv"
    place.parent.mkdir(parents=True)
    ratings.rename(place)
    monkeypatch.chdir(tmp_path)
    prepare("--data_dir", "my data", *HELD_OUT)
    assert open_dataset(tmp_path / "my data", "ml-20m").name == "ml-20m"


def test_the_demo_is_generated_once_and_prepared_once(demo_data):
    before = state(demo_data)
    said = prepare("--dataset", "synthetic", "--data_dir", demo_data)
    assert [line.rsplit(" is already ", 1)[1] for line in said] == [
        "generated.",
        "prepared from the same ratings with the same parameters.",
    ]
    assert state(demo_data) == before
    data = open_dataset(demo_data, "synthetic")
    assert data.validation.fold_in.shape[0] == data.test.fold_in.shape[0] == 500


def at_once(*commands):
    """What several runs at the same time say; all of them succeed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [
        subprocess.Popen(
            [sys.executable, "prepare_dataset.py", *map(str, flags)], cwd=ROOT, **pipes
        )
        for flags in commands
    ]
    ends = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    assert [(error, code) for _, error, code in ends] == [("", 0)] * len(runs)
    return [said for said, *_ in ends]


def test_of_two_preparations_at_once_the_second_waits_and_prepares_what_differs(tmp_path, flags):
    said = at_once([*flags, "--seed", 1], [*flags, "--seed", 2])
    assert sum("Preparing again: --seed changed " in lines for lines in said) == 1
    said = at_once(flags, flags)
    assert sum("is already prepared" in lines for lines in said) == 1
    open_dataset(tmp_path, "mine")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_stopped_at_any_moment_it_leaves_whole_data_or_none(
    tmp_path, flags, prepared, number, code
):
    folder, _ = prepared
    moments = random.Random(number)
    stopped = 0
    for seed in range(1, 4):
        command = [sys.executable, "prepare_dataset.py", *map(str, flags), "--seed", str(seed)]
        with subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as run:  # fmt: skip
            run.stdout.readline()  # That it prepares again: all that follows takes some 20 ms.
            time.sleep(moments.uniform(0, 0.02))
            run.send_signal(number)
            _, stderr = run.communicate(timeout=60)
        # While Python shuts down, a signal ends it as the system does by itself.
        assert run.returncode in (0, code, -number)
        assert stderr == ""
        stopped += run.returncode != 0
        if read_manifest(folder) is not None:
            open_dataset(tmp_path, "mine")
    assert stopped, "no signal came in time"
    prepare(*flags)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "file not found"),
        (["1,2,x"], "row 2 (1,2,x): 'x' is not a"),
        (["1,2,5"], "0 users are left"),
        (["1,2,3"], "lower --threshold"),
    ],
)
def test_an_unusable_file_is_one_sentence_and_leaves_nothing(
    tmp_path, flags, ratings, content, expected
):
    ratings.unlink() if content is None else write(ratings, content)
    assert expected in refusal(*flags)
    folder = prepared_folder(tmp_path, "mine")
    assert not folder.exists() or not list(folder.iterdir())


def test_an_unusable_file_leaves_the_data_of_a_good_one(flags, prepared, ratings):
    folder, _ = prepared
    before = state(folder)
    write(ratings, ["1,2,x"])
    assert "row 2" in refusal(*flags)
    assert state(folder) == before


def test_held_out_users_with_too_few_items_for_a_target_are_refused(flags, ratings):
    interactions = [(user, (user + n) % 9) for user in range(30) for n in range(4)]
    write(ratings, [f"{user},{item},5" for user, item in interactions])
    assert refusal(*flags, "--min_items_per_user", 1) == (
        "no validation user has a held-out target; a user needs at least 5 items seen in training; "
        "raise --heldout_users, --min_items_per_user or --test_proportion, or lower --threshold."
    )


@pytest.mark.parametrize("dataset", ["mine", "synthetic"])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, ratings, dataset):
    (tmp_path / "file").touch()
    source = ("--ratings", ratings) if dataset == "mine" else ()
    sentence = refusal("--data_dir", tmp_path / "file", "--dataset", dataset, *source, *HELD_OUT)
    assert sentence.startswith(f"{tmp_path}/file/{dataset}/preprocessed: cannot be written (")
    assert sentence.endswith("pass another --data_dir.")


def test_the_environment_cannot_break_reading_utf8(tmp_path, rows):
    path = tmp_path / "ratings.csv"
    text = ["userId,movieId,rating", *("é" + row for row in rows)]
    path.write_text("\n".join(text), encoding="utf-8")
    flags = ("--data_dir", tmp_path, "--dataset", "mine", "--ratings", path, *HELD_OUT)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_script("prepare_dataset.py", *flags, env=plain)
    assert done.returncode == 0, done.stderr
    assert open_dataset(tmp_path, "mine").train_user_ids[0].startswith("é")


def test_the_real_movielens_is_prepared_as_pandas_counts_it(tmp_path, ratings_of_movielens):
    said = prepare(
        "--data_dir", tmp_path, "--dataset", "small", "--ratings", ratings_of_movielens,
        "--heldout_users", 60,
    )  # fmt: skip
    ratings = pd.read_csv(ratings_of_movielens)
    liked = ratings[ratings.rating >= 4.0]
    interactions = liked.drop_duplicates(["userId", "movieId"])
    items_per_user = interactions.groupby("userId").movieId.nunique()
    users = items_per_user.index[items_per_user >= 5]
    interactions = interactions[interactions.userId.isin(users)]

    data = open_dataset(tmp_path, "small")
    trained = interactions[interactions.userId.isin(data.train_user_ids)]
    items = sorted(trained.movieId.unique())
    held = interactions[~interactions.userId.isin(data.train_user_ids)]
    known = held[held.movieId.isin(items)]
    assert data.item_ids.tolist() == items
    assert data.train.nnz == len(trained)
    counts = read_manifest(prepared_folder(tmp_path, "small")).counts
    expected = {
        "rows": len(ratings),
        "rows_missing": 0,
        "interactions": len(liked),
        "distinct_interactions": len(liked.drop_duplicates(["userId", "movieId"])),
        "users": len(users),
        "dropped_users": liked.userId.nunique() - len(users),
        "dropped_items": 0,
        "items": len(items),
        "train_users": len(users) - 120,
        "train_interactions": len(trained),
        "heldout_users": 60,
        "heldout_interactions_dropped": len(held) - len(known),
    }
    for name, part in (("validation", data.validation), ("test", data.test)):
        mine = known[known.userId.isin(part.user_ids)]
        lengths = mine.groupby("userId").size().reindex(part.user_ids, fill_value=0)
        targets = (lengths // 5).where(lengths >= 5, 0)
        assert np.diff(part.targets.indptr).tolist() == targets.tolist()
        assert np.diff(part.fold_in.indptr).tolist() == (lengths - targets).tolist()
        expected[f"{name}_fold_in_interactions"] = (lengths - targets).sum()
        expected[f"{name}_target_interactions"] = targets.sum()
        expected[f"{name}_users_without_targets"] = (targets == 0).sum()
    assert counts == expected
    assert f"{len(ratings):,} rows read, {len(liked):,} kept" in said[0]


def reject_flags(tmp_path, *more):
    return (*more, "--drop_missing", "--rejects", tmp_path / "new/rejects.csv")


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_dropped_rows_are_listed_with_file_row_text_and_reason(tmp_path, flags, ratings, suffix):
    table = pd.read_csv(ratings, dtype=str)
    table.loc[3, "userId"] = "NULL"
    table.loc[5, ["movieId", "rating"]] = None
    table.loc[8, "rating"] = None
    path = tmp_path / f"ratings.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    elif suffix == "json":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    flags = (*flags[:-3], path, *HELD_OUT)
    said = prepare(*reject_flags(tmp_path, *flags))
    rejects = tmp_path / "new/rejects.csv"
    assert f"{rejects}: 3 dropped rows, with the reason of each." in said
    found = pd.read_csv(rejects)
    first = 2 if suffix == "csv" else 1
    assert (found.file == str(path)).all()
    assert found.row.tolist() == [3 + first, 5 + first, 8 + first]
    assert found.column.tolist() == ["userId", "movieId", "rating"]
    assert found.reason.tolist() == [
        "'NULL' stands for a missing value", *["the value is missing"] * 2
    ]  # fmt: skip
    user, item, _ = table.loc[8]
    assert found.text.tolist()[1:] == [f"{table.userId[5]},,", f"{user},{item},"]
    # The rows are not known without reading the files again.
    rejects.unlink()
    assert prepare(*reject_flags(tmp_path, *flags))[0] == "Preparing again: --rejects is set."
    assert len(pd.read_csv(rejects)) == 3


def test_the_list_of_dropped_rows_ends_at_its_limit_and_says_so(tmp_path, flags, rows, ratings):
    # In the order of the rows, whichever column lacks its value.
    write(ratings, ["1,,5", ",1,5"] * 5_000 + ["1,1,"] + rows)
    said = prepare(*reject_flags(tmp_path, *flags))
    rejects = tmp_path / "new/rejects.csv"
    assert (
        said[0] == f"{rejects}: the first 10,000 of 10,001 dropped rows, with the reason of each."
    )
    assert pd.read_csv(rejects).row.tolist() == [*range(2, 10_002)]


def test_rejects_that_cannot_be_written_are_refused_before_anything_is_read(tmp_path, flags):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)  # which the superuser could replace
    for path, problem in {
        "folder": "is a folder; name a file",
        "pipe": "is a device or a pipe; name a file",
        "device": "is a device or a pipe; name a file",
        "ratings.csv/x": "cannot be",
    }.items():
        sentence = refusal(*flags, "--drop_missing", "--rejects", tmp_path / path)
        assert sentence.startswith(f"--rejects {tmp_path / path}: {problem}")
    assert not (tmp_path / "mine").exists()
