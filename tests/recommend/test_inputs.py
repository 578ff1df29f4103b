"""Inputs and outputs of --recommend and --export, which are checked before a run."""

import gc
import os
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import run_main

from vae.load.config import PrepareConfig
from vae.load.prepare import prepare
from vae.recommend import titles

USERS, ITEMS = 60, 30
TINY = ("--hidden_dim", 8, "--latent_dim", 4, "--batch_size_train", 20, "--epochs", 1)


def prepared(folder, name, user="userId", item="movieId"):
    """Prepares the same interactions under columns of these names."""
    rng = np.random.default_rng(0)
    rows = [(u, i) for u in range(USERS) for i in rng.choice(ITEMS, 8, replace=False)]
    source = folder / f"{name}.csv"
    pd.DataFrame(rows, columns=[user, item]).to_csv(source, index=False)
    options = PrepareConfig(
        data_dir=folder, dataset=name, ratings=(source,), user_col=user, item_col=item,
        rating_col="none", heldout_users=10, min_items_per_user=1,
    )  # fmt: skip
    prepare(options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the data set ``tiny``."""
    folder = tmp_path_factory.mktemp("tiny")
    prepared(folder, "tiny")
    return folder


@pytest.fixture
def tiny(data, tmp_path, monkeypatch):
    """Runs main.py on the tiny data set in an empty folder, the log beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    flags = ("--data_dir", data, "--log_path", tmp_path / "run.log", *TINY)
    return lambda *more: run_main(*flags, "--dataset", "tiny", *more)


def files_here():
    return sorted(Path().rglob("*"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--recommend none.csv --output r.csv", "none.csv: file not found"),
        ("--recommend bad.csv --output r.csv", "bad.csv: has no column 'userId'"),
        ("--recommend none.parquet --output r.csv", "no id in its column 'movieId' is"),
        ("--recommend cut.csv --output r.csv", "cut.csv: row 3 (3): 1 columns where row 1"),
        ("--recommend --output r.csv --deny bad.csv", "--deny bad.csv: has no column 'movieId'"),
        ("--recommend --output r.csv --allow none.csv", "--allow none.csv: file not found"),
        ("--recommend --output r.csv --allow none.parquet", "--allow none.parquet: no id in its"),
        (
            "--recommend --output cut.csv/r.csv",
            "--output cut.csv/r.csv: cannot be written (Not a directory)",
        ),
        (
            "--recommend --output cut.csv/a/b/r.csv",
            "--output cut.csv/a/b/r.csv: cannot be written (Not a directory)",
        ),
        ("--recommend --output f.csv", "--output f.csv: is a folder; name a file."),
        ("--recommend --output p.csv", "--output p.csv: is a device or a pipe; name a file."),
        (
            f"--recommend --output {'x' * 300}.csv",
            ".csv: cannot be written (File name too long)",
        ),
        (
            "--recommend --output /proc/r.csv",
            "--output /proc/r.csv: cannot be written (No such file or directory)",
        ),
        ("--export_items i.parquet", "--export_items i.parquet: is a folder; name a file"),
        ("--export f.csv", "--export f.csv: is not an empty folder; name an empty or a new"),
        ("--export cut.csv", "--export cut.csv: is not an empty folder"),
        ("--export cut.csv/m", "--export cut.csv/m: cannot be written (Not a directory)"),
        ("--export /proc/m", "--export /proc/m: cannot be written (No such file or"),
        ("--export link", "--export link: is a link"),
        ("--export .", "--export .: cannot be replaced"),
        ("--export / --log_path /dev/null", "--export /: "),
        (f"--export {'x' * 300}", ": cannot be written (File name too long)"),
        ("--export m --item_names none.csv", "--item_names none.csv: file not found"),
        ("--export m --item_names bad.csv", "bad.csv: has no column 'movieId'"),
        ("--similar_items terminator", "--similar_items terminator: tiny has no such item"),
        ("--trace", "--trace timeline_train.json: is a folder; name a file"),
        (
            "--inference_benchmark --trace --results_dir results",
            "--trace results/timeline_inference.json: is a folder; name",
        ),
    ],
)
def test_unusable_files_are_refused_before_training_and_nothing_is_left(tiny, flags, sentence):
    Path("bad.csv").write_text("user,name\n1,2\n")
    Path("cut.csv").write_text("userId,movieId\n1,2\n3\n")
    pd.DataFrame({"userId": [1], "movieId": ["2.0"]}).to_parquet("none.parquet")
    inference = "results/timeline_inference.json"
    for folder in ("f.csv/inner", "i.parquet", "empty", "timeline_train.json", inference):
        Path(folder).mkdir(parents=True)
    Path("link").symlink_to("empty")
    os.mkfifo("p.csv")
    before = files_here()
    code, out, err = tiny("--train", *flags.split())
    assert code == 2
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert "train_epoch_time" not in out
    assert files_here() == before


@pytest.mark.parametrize(
    ("flag", "what", "package"),
    [
        ("--results_dir", "report", "matplotlib"),
        ("--results_dir", "report", "jinja2"),
        ("--export", "model card", "jinja2"),
    ],
)
def test_outputs_without_their_packages_are_refused_before_training(
    tiny, monkeypatch, flag, what, package
):
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = tiny("--train", flag, "folder")
    assert code == 2
    assert f"{flag}: the {what} needs {package}, which is not installed" in err
    assert "train_epoch_time" not in out


@pytest.fixture(scope="module")
def checkpoints(data, tmp_path_factory):
    """The checkpoints of a model of the tiny data set."""
    folder = tmp_path_factory.mktemp("checkpoints")
    done = run_main(
        *TINY, "--train", "--data_dir", data, "--dataset", "tiny", "--checkpoint_dir", folder,
        "--log_path", folder / "log",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def write_titles(path, id_column, title_column, ids=None):
    rows = [(item, f"The {item}") for item in (range(ITEMS) if ids is None else ids)]
    pd.DataFrame(rows, columns=[id_column, title_column]).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("user", "item", "added", "renamed"),
    [
        ("source", "target", "rank score vae_source title", "source as vae_source"),
        (
            "title",
            "rank",
            "vae_rank score source vae_title",
            "rank as vae_rank, title as vae_title",
        ),
        ("vae_score", "score", "rank vae_vae_score source title", "score as vae_vae_score"),
        ("user", "title", "rank score source vae_title", "title as vae_title"),
        ("user", "vae_title", "rank score source title", None),
    ],
)
def test_an_added_column_never_replaces_one_of_the_ratings(
    tiny, data, checkpoints, user, item, added, renamed
):
    prepared(data, f"{user}-{item}", user, item)
    write_titles("titles.csv", item, "name")
    code, out, err = tiny(
        "--recommend", "--output", "r.csv", "--item_names", "titles.csv", "--title_col", "name",
        "--checkpoint_dir", checkpoints, "--dataset", f"{user}-{item}", "--top_results", 3,
    )  # fmt: skip
    assert code == 0, err
    rows = pd.read_csv("r.csv")
    assert list(rows) == [user, item, *added.split()]
    rank, score, source, title = rows[added.split()].values.T
    assert sorted(rows[user].unique()) == list(range(USERS))
    assert title.tolist() == [f"The {i}" for i in rows[item]]
    assert set(source) == {"model"}
    assert rank.tolist() == [1, 2, 3] * USERS
    assert (np.diff(score.reshape(-1, 3).astype(float)) <= 0).all()
    first, second = rows[item][:2]
    assert f"{user} {rows[user][0]}: {first} The {first}; {second} The {second}" in out
    assert (f"because the ratings file uses their names: {renamed}." in out) == (
        renamed is not None
    )


def test_titles_that_are_the_ids_are_written_beside_them(tiny, data, checkpoints):
    prepared(data, "titled", item="title")
    write_titles("titles.csv", "title", "name")
    code, out, err = tiny(
        "--recommend", "--output", "r.csv", "--item_names", "titles.csv", "--top_results", 3,
        "--similar_items", 5, "--export", "m", "--checkpoint_dir", checkpoints,
        "--dataset", "titled",
    )  # fmt: skip
    assert code == 0, err
    rows = pd.read_csv("r.csv")
    assert list(rows) == ["userId", "title", "rank", "score", "source", "vae_title"]
    assert (rows.title == rows.vae_title).all()
    assert "Nearest to item 5 5" in out
    items = pd.read_csv("m/item_ids.csv")
    assert list(items) == ["item_index", "item_id", "title"]
    assert (items.item_id == items.title).all()


def test_titles_are_read_once_and_the_items_that_have_one_are_counted(
    tiny, checkpoints, monkeypatch
):
    write_titles("titles.csv", "movieId", "title", ids=[*range(25), 1000])
    Path("m").mkdir()
    reads = []
    read = titles.read_texts
    monkeypatch.setattr(
        titles, "read_texts", lambda path, *rest: reads.append(path) or read(path, *rest)
    )
    code, out, err = tiny(
        "--recommend", "--output", "r.csv", "--similar_items", 5, "--export", "m",
        "--item_names", "titles.csv", "--checkpoint_dir", checkpoints,
    )  # fmt: skip
    assert code == 0, err
    assert out.count("Titles: 25 of 30 items.") == 1
    assert [str(path) for path in reads] == ["titles.csv"]


def test_titles_of_another_column_and_users_alone_are_used(tiny, checkpoints):
    Path("tracks.txt").write_text("".join(f"T{i}<SEP>{i}<SEP>The {i}\n" for i in range(ITEMS)))
    Path("users.csv").write_text("userId\n7\n11\n")
    code, out, err = tiny(
        "--recommend", "users.csv", "--output", "r.csv", "--item_names", "tracks.txt",
        "--item_names_col", 1, "--title_col", 2, "--checkpoint_dir", checkpoints,
    )  # fmt: skip
    assert code == 0, err
    assert "Titles: 30 of 30 items." in out
    assert "users.csv: 2 users, 16 known interactions." in out
    rows = pd.read_csv("r.csv")
    assert sorted(rows.userId.unique()) == [7, 11]
    assert len(rows) == 2 * (ITEMS - 8)
    assert rows.title.tolist() == [f"The {i}" for i in rows.movieId]


def test_names_that_are_not_utf8_are_names_like_others(tiny):
    name = os.fsdecode(b"caf\xe9")
    pd.DataFrame({"userId": ["ann"], "movieId": [1]}).to_parquet(io := BytesIO())
    Path(name).mkdir()
    Path(name, f"{name}.parquet").write_bytes(io.getvalue())
    for output in (f"{name}.csv.gz", f"{name}.parquet"):
        code, _, err = tiny(
            "--train", "--recommend", f"{name}/{name}.parquet", "--output", output,
            "--export_items", f"{name}/i.parquet", "--results_dir", f"{name}-results",
            "--checkpoint_dir", f"{name}-ckpt", "--tensorboard_dir", f"{name}-tensorboard",
            "--log_path", f"{name}.log", "--resume", "auto",
        )  # fmt: skip
        assert code == 0, err
    assert pd.read_csv(BytesIO(Path(f"{name}.csv.gz").read_bytes()), compression="gzip").size
    assert pd.read_parquet(BytesIO(Path(f"{name}.parquet").read_bytes())).size
    assert len(pd.read_parquet(BytesIO(Path(name, "i.parquet").read_bytes()))) == ITEMS


def test_every_file_is_closed(tiny):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        code, _, err = tiny("--train", "--recommend", "--output", "r.csv", "--results_dir", "r")
        gc.collect()
    assert code == 0, err
    assert not [str(one.message) for one in caught if one.category is ResourceWarning]


def test_histories_are_read_before_training_and_used_after_it(tiny):
    Path("h.csv").write_text("userId,movieId\nann,1\nann,2\nann,1000\n")

    code, out, err = tiny("--train", "--recommend", "h.csv", "--output", "a/b/r.csv")
    assert code == 0, err
    read = "h.csv: 1 users, 2 known interactions; items unknown to the model, skipped: 1."
    assert read in out
    assert out.index(read) < out.index("epoch 1/")
    assert set(pd.read_csv("a/b/r.csv").userId) == {"ann"}
    assert [path.name for path in Path("a/b").iterdir()] == ["r.csv"]
