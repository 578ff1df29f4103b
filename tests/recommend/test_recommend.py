"""Recommendations from the command line, in raw ids, against brute force on the same weights."""

import os
import signal
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from helpers import SMALL, Forked, log_lines, output_of, run_main, run_prepare
from models.reference import encode
from recommend.expected import (
    USERS,
    K,
    assert_filtered,
    assert_rows,
    best,
    mask,
    random_filter,
)

import vae

THRESHOLD = 4.0


@pytest.fixture(scope="session")
def ratings(demo_data):
    """The demo's own ratings, the disliked ones included."""
    return pd.read_csv(demo_data / "synthetic/extracted/synthetic/ratings.csv")


def test_raw_histories_get_the_best_unseen_items_in_raw_ids(
    on_model, dataset, weights, ratings, tmp_path
):
    ratings = ratings[ratings.userId.isin(ratings.userId.unique()[:50])]
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
        liked = mask(dataset, history[history.rating >= THRESHOLD], user)
        # Items rated below the threshold are neither folded in nor recommended.
        expected = best(dataset, weights, liked, mask(dataset, history, user))
        assert_rows(rows[rows.userId == user], *expected)
    assert [*output.parent.iterdir()] == [output]


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
        "--recommend", tmp_path / "h.csv", "--output", tmp_path / "r.csv", "--top_results", 5,
        "--log_path", tmp_path / "log",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 users, 2 known interactions; items unknown to the model, skipped: 3." in done.stdout
    assert log_lines(tmp_path / "log")[-1]["data"]["recommend_popular_users"] == 1
    rows = pd.read_csv(tmp_path / "r.csv")
    seen = {"ann": np.isin(np.arange(len(ids)), [0, 3]), "bob": np.zeros(len(ids), bool)}
    for user, source in (("ann", "model"), ("bob", "popular")):  # bob is a cold-start user
        mine = rows[rows.userId == user]
        assert set(mine.source) == {source}
        assert_rows(mine, *best(dataset, weights, seen[user], seen[user], 5))
    fractions = np.bincount(dataset.train.indices) / dataset.train.shape[0]
    np.testing.assert_allclose(np.exp(mine.score), np.sort(fractions)[:-6:-1], rtol=1e-5)


def test_without_a_file_all_prepared_users_get_a_list_of_unseen_items(
    on_model, ratings, dataset, tmp_path
):
    done = on_model("--recommend", "--output", tmp_path / "all.parquet", "--top_results", 3)
    assert done.returncode == 0, done.stderr
    rows = pa_parquet.read_table(tmp_path / "all.parquet").to_pandas()
    held_out = (dataset.validation, dataset.test)
    users = np.concatenate([dataset.train_user_ids, *(part.user_ids for part in held_out)])
    assert rows.userId.unique().tolist() == users.tolist()
    assert (rows.groupby("userId").size() == 3).all()
    both = rows.merge(ratings[ratings.rating >= THRESHOLD], on=["userId", "movieId"])
    assert both.empty, "the history of a held-out user has fold-in items and targets"


def test_filters_are_read_counted_and_logged(on_model, dataset, weights, histories, tmp_path):
    rng = np.random.default_rng(1)
    allow = random_filter(dataset, rng, 0.2, by_user=True)
    deny = random_filter(dataset, rng, 0.4, by_user=False)
    allow.to_parquet(tmp_path / "allow.parquet")
    deny.to_csv(tmp_path / "deny.csv.gz", index=False)
    histories[histories.userId < USERS].to_csv(tmp_path / "h.csv", index=False)
    code, out, err = on_model(
        "--recommend", tmp_path / "h.csv", "--output", tmp_path / "r.csv", "--top_results", K,
        "--allow", tmp_path / "allow.parquet", "--deny", tmp_path / "deny.csv.gz",
        "--batch_size_validation", 5, "--log_path", tmp_path / "log",
    )  # fmt: skip
    assert code == 0, err
    known = len(deny) - 1
    assert f"deny.csv.gz: {known:,} items for all users; items unknown to the model, skip" in out
    assert "allow.parquet: " in out
    assert "Users to whom nothing is left to recommend: 1." in out
    assert log_lines(tmp_path / "log")[-1]["data"]["recommend_empty_users"] == 1
    rows = pd.read_csv(tmp_path / "r.csv")
    assert assert_filtered(rows, dataset, weights, histories, allow, deny) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(run, tmp_path, number):
    _, flags, _ = run
    program = Forked(
        [*flags[: flags.index("--results_dir")], *SMALL, "--log_path", os.devnull, "--recommend",
         "--output", tmp_path / "r.csv", "--explain", 9, "--batch_size_validation", 20]
    )  # fmt: skip
    # Until rows are written: TensorFlow may print an error of its own for a signal that comes
    # while it builds a graph.
    while program.poll() is None and not any(map(os.path.getsize, tmp_path.glob(".writing-*/r*"))):
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
        table = read(tmp_path / f"r.{suffix}", **options)
        tables[suffix] = table.assign(title=table.title.fillna(""))
    assert (tmp_path / "r.csv.gz").read_bytes().startswith(b"\x1f\x8b")
    for table in tables.values():
        pd.testing.assert_frame_equal(table, tables["csv"], check_dtype=False, rtol=1e-6)
    for row in table.itertuples():
        assert row.title == (f'"{row.movieId}", the film' if row.movieId in ids[::2] else "")


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


def test_similar_items_are_listed_in_raw_ids_with_titles(on_model, dataset, movies):
    ids = dataset.item_ids
    done = on_model("--similar_items", ids[5], "--item_names", movies)
    assert done.returncode == 0, done.stderr
    title = pd.read_csv(movies).set_index("movieId").title
    first, *lines = done.stdout[done.stdout.index("Nearest to item") :].splitlines()
    assert first == f"Nearest to item {ids[5]} {title[ids[5]]}, by cosine:"
    cosines, items = zip(*(line.split()[:2] for line in lines[:10]), strict=True)
    assert list(cosines) == sorted(cosines, key=float, reverse=True)
    assert set(items) <= set(map(str, ids)) - {str(ids[5])}
    assert lines[0].endswith(title[int(items[0])])


def test_item_vectors_are_the_columns_of_the_last_kernel(on_model, dataset, weights, tmp_path):
    titles = {item: f"The {item}" for item in dataset.item_ids[::2].tolist()}
    frame = pd.DataFrame({"movieId": titles.keys(), "title": titles.values()})
    frame.to_csv(tmp_path / "films.csv", index=False)
    path = tmp_path / "new/items.parquet"
    code, out, err = on_model("--export_items", path, "--item_names", tmp_path / "films.csv")
    assert code == 0, err
    assert f"Item vectors: 1,200 items of 64 dimensions: {path}" in out
    table = pa_parquet.read_table(path)
    assert table.schema.names == ["id", "title", "vector", "bias"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 64)
    assert table["id"].to_pylist() == dataset.item_ids.tolist()
    assert table["title"].to_pylist() == [titles.get(item) for item in dataset.item_ids.tolist()]
    kernel = weights["decoder/items/kernel"]
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), kernel[:, :1200].T)
    np.testing.assert_array_equal(table["bias"], weights["decoder/items/bias"][:1200])
    assert [*path.parent.iterdir()] == [path]
    # Without titles there is no column of them.
    code, _, err = on_model("--export_items", path)
    assert code == 0, err
    assert pa_parquet.read_schema(path).names == ["id", "vector", "bias"]


def test_user_vectors_are_the_means_of_the_histories(on_model, dataset, weights, tmp_path):
    path, ids = tmp_path / "users.parquet", dataset.item_ids
    output_of(on_model("--export_users", path, "--batch_size_validation", 900))
    table = pa_parquet.read_table(path)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 16)
    assert table["id"].to_pylist() == dataset.all_user_ids().tolist()
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    for user, (row,) in ((2, np.split(dataset.train[2].indices, 1)), (-1, [[0, 3]])):
        if user == -1:  # of other users, and no recommendations beside them
            (tmp_path / "h.csv").write_text(f"userId,movieId\nann,{ids[0]}\nann,{ids[3]}\nbob,x\n")
            done = on_model("--recommend", tmp_path / "h.csv", "--export_users", path)
            assert "who all have the same vector: 1." in output_of(done)
            table, user = pa_parquet.read_table(path), 0
            assert table["id"].to_pylist() == ["ann", "bob"]
        x = np.zeros(len(w["encoder/hidden/kernel"]))
        x[row] = len(row) ** -0.5
        np.testing.assert_allclose(table["vector"][user].as_py(), encode(w, x)[0], atol=1e-5)
