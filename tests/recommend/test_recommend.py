"""Recommendations from the command line, in raw ids, against brute force on the same weights."""

import os
import signal
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pa_parquet
import pytest
from helpers import SMALL, Forked, run_main, run_prepare
from models.reference import brute_force

import vae

THRESHOLD = 4.0


@pytest.fixture(scope="session")
def ratings(demo_data):
    """The demo's own ratings of its first users, the disliked ones included."""
    path = demo_data / "synthetic/extracted/synthetic/ratings.csv"
    rows = pd.read_csv(path)
    return rows[rows.userId.isin(rows.userId.unique()[:50])]


def known(dataset, items):
    """(I,) 1 for each item of the catalogue that has one of these raw ids, else 0."""
    return np.isin(dataset.item_ids, items).astype(int)


def assert_equals_brute_force(rows, dataset, weights, liked, seen, k):
    """The rows of a user are the k best unseen items, best first, with their scores."""
    best, scores = brute_force(weights, known(dataset, liked), known(dataset, seen), k)
    np.testing.assert_allclose(rows.score, scores, atol=1e-4)
    assert rows["rank"].tolist() == list(range(1, len(best) + 1))
    # Items whose scores differ by rounding alone may change places.
    score_of = dict(zip(dataset.item_ids[best].tolist(), scores, strict=True))
    assert set(rows.movieId) == set(score_of)
    np.testing.assert_allclose([score_of[item] for item in rows.movieId], rows.score, atol=1e-4)


def test_raw_histories_get_the_best_unseen_items_in_raw_ids(
    on_model, dataset, weights, ratings, tmp_path
):
    ratings.to_csv(tmp_path / "histories.csv", index=False)
    output = tmp_path / "out/recommended.csv"
    done = on_model(
        "--recommend", tmp_path / "histories.csv", "--output", output,
        "--top_results", 20, "--batch_size_validation", 16,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(output)
    assert list(rows) == ["userId", "movieId", "rank", "score", "source"]
    assert set(rows.source) == {"model"}
    for user, history in ratings.groupby("userId"):
        liked = history[history.rating >= THRESHOLD].movieId
        mine = rows[rows.userId == user]
        # Items rated below the threshold are neither folded in nor recommended.
        assert not set(mine.movieId) & set(history.movieId)
        assert_equals_brute_force(mine, dataset, weights, liked, history.movieId, 20)
    assert not list(output.parent.glob(".*")), "a temporary file is left"


def test_ratings_are_optional_and_unknown_items_are_skipped_and_counted(
    on_model, dataset, weights, tmp_path
):
    ids = dataset.item_ids
    histories = pd.DataFrame(
        [("ann", ids[0]), ("ann", ids[3]), ("ann", ids[3]), ("ann", "no-such-film"),
         ("bob", "nor-this"), ("bob", "99999999")],
        columns=["userId", "movieId"],
    )  # fmt: skip
    histories.to_csv(tmp_path / "h.csv", index=False)
    done = on_model(
        "--recommend", tmp_path / "h.csv", "--output", tmp_path / "r.csv", "--top_results", 5
    )
    assert done.returncode == 0, done.stderr
    assert "2 users, 2 known interactions; items unknown to the model, skipped: 3." in done.stdout
    rows = pd.read_csv(tmp_path / "r.csv")
    ann, bob = rows[rows.userId == "ann"], rows[rows.userId == "bob"]
    assert_equals_brute_force(ann, dataset, weights, ids[[0, 3]], ids[[0, 3]], 5)
    # Bob is a cold-start user: popular items, with that source.
    assert set(bob.source) == {"popular"}
    users_per_item = np.bincount(dataset.train.indices)
    popular = np.argsort(-users_per_item, kind="stable")[:5]
    assert bob.movieId.tolist() == ids[popular].tolist()
    fractions = users_per_item[popular] / dataset.train.shape[0]
    np.testing.assert_allclose(np.exp(bob.score), fractions, rtol=1e-5)


def test_without_a_file_all_prepared_users_get_a_list_of_unseen_items(
    on_model, demo_data, dataset, tmp_path
):
    done = on_model("--recommend", "--output", tmp_path / "all.parquet", "--top_results", 3)
    assert done.returncode == 0, done.stderr
    rows = pa_parquet.read_table(tmp_path / "all.parquet").to_pandas()
    held_out = (dataset.validation, dataset.test)
    users = np.concatenate([dataset.train_user_ids, *(part.user_ids for part in held_out)])
    assert rows.userId.unique().tolist() == users.tolist()
    assert (rows.groupby("userId").size() == 3).all()
    ratings = pd.read_csv(demo_data / "synthetic/extracted/synthetic/ratings.csv")
    liked = ratings[ratings.rating >= THRESHOLD]
    both = rows.merge(liked, on=["userId", "movieId"])
    assert both.empty, "the history of a held-out user has fold-in items and targets"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(run, tmp_path, number):
    _, flags, _ = run
    program = Forked(
        [*flags[: flags.index("--results_dir")], *SMALL, "--log_path", os.devnull, "--recommend",
         "--output", tmp_path / "r.csv", "--explain", 9, "--batch_size_validation", 20]
    )  # fmt: skip
    while program.poll() is None and not list(tmp_path.glob(".writing-*")):
        time.sleep(0.01)
    os.kill(program.process.pid, number)
    done = program.wait()
    assert done.returncode == 128 + number, done.stderr
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_the_suffix_chooses_the_format_and_titles_are_joined(on_model, dataset, tmp_path):
    ids = dataset.item_ids
    (tmp_path / "h.csv").write_text(f"userId,movieId\n7,{ids[1]}\n7,{ids[2]}\n")
    titles = pd.DataFrame({"movieId": ids[::2], "name": [f'"{i}", the film' for i in ids[::2]]})
    titles.to_csv(tmp_path / "films.csv", index=False)
    tables = {}
    for suffix in ("csv", "tsv", "csv.gz", "parquet"):
        done = on_model(
            "--recommend", tmp_path / "h.csv", "--output", tmp_path / f"r.{suffix}",
            "--item_names", tmp_path / "films.csv", "--title_col", "name",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        read = pd.read_parquet if suffix == "parquet" else pd.read_csv
        options = {"sep": "\t"} if suffix == "tsv" else {}
        tables[suffix] = read(tmp_path / f"r.{suffix}", **options)
    assert (tmp_path / "r.csv.gz").read_bytes().startswith(b"\x1f\x8b")
    for table in tables.values():
        same = table.assign(title=table.title.fillna(""))
        expected = tables["csv"].assign(title=tables["csv"].title.fillna(""))
        pd.testing.assert_frame_equal(same, expected, check_dtype=False, rtol=1e-6)
    for row in tables["csv"].itertuples():
        if row.movieId in ids[::2]:
            assert row.title == f'"{row.movieId}", the film'
        else:
            assert pd.isna(row.title)


def test_files_without_a_header_are_prepared_trained_on_and_recommended_from(tmp_path):
    rows = [f"{user}::{user * item % 12}::5::978300760" for user in range(60) for item in range(9)]
    (tmp_path / "ratings.dat").write_text("\n".join(rows))
    (tmp_path / "movies.dat").write_bytes(
        "".join(f"{item}::Caf\u00e9 {item}::Drama\n" for item in range(12)).encode("latin-1")
    )
    (tmp_path / "histories.dat").write_text("ann::1::5\nann::2::1\n")
    data = ("--data_dir", tmp_path, "--dataset", "ml-1m")
    done = run_prepare(
        *data, "--ratings", tmp_path / "ratings.dat", "--no_header", "--sep", "::",
        "--encoding", "latin-1", "--user_col", 0, "--item_col", 1, "--rating_col", 2,
        "--heldout_users", 5, "--min_items_per_user", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_main(
        "--train", "--epochs", 1, *SMALL, *data, "--recommend", tmp_path / "histories.dat",
        "--output", tmp_path / "r.csv", "--item_names", tmp_path / "movies.dat", "--title_col", 1,
        "--top_results", 3, "--log_path", tmp_path / "log", "--checkpoint_dir", tmp_path / "ckpt",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "r.csv")
    assert list(table) == ["user", "item", "rank", "score", "source", "title"]
    assert table.user.tolist() == ["ann"] * 3
    assert not {1, 2} & set(table.item)
    assert table.title.tolist() == [f"Caf\u00e9 {item}" for item in table.item]

    recommender = vae.Recommender.load(tmp_path / "ckpt", tmp_path, "ml-1m", "latest")
    histories = pd.DataFrame({"user": "ann", "item": [1, 2], "rating": [5, 1], "note": [None, ""]})
    again = recommender.recommend(histories, 3)
    pd.testing.assert_frame_equal(again, table.drop(columns="title"), check_dtype=False, rtol=1e-4)
    (tmp_path / "deny.dat").write_text(f"{table.item[0]}\n")
    without = recommender.recommend(histories, 2, deny=tmp_path / "deny.dat")
    assert without.item.tolist() == table.item.tolist()[1:]
