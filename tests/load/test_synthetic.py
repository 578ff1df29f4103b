"""Synthetic ratings: a function of the seed alone, in MovieLens' format, generated once."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from vae.errors import UserError
from vae.load import synthetic
from vae.load.config import SCALES
from vae.load.synthetic import POPULATIONS, Population, generate

SMALL = Population(300, 90, 6, 20, 5, 2, 0.8, 5, 1.0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A population that takes no time."""
    monkeypatch.setitem(POPULATIONS, "small", SMALL)


def generated(folder, seed=0, scale="small"):
    """Generates into a folder; returns the file and what was said."""
    said = []
    generate(folder / "ratings.csv", scale, seed, said.append)
    return folder / "ratings.csv", said


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path):
    one, other, another = (
        generated(tmp_path / name, seed)[0].read_bytes()
        for name, seed in (("one", 3), ("other", 3), ("another", 4))
    )
    assert one == other
    assert one != another


def check(ratings):
    """Checks the columns and values of MovieLens, and that a user rates an item once."""
    assert list(ratings.columns) == ["userId", "movieId", "rating", "timestamp"]
    assert ratings.userId.dtype == ratings.movieId.dtype == ratings.timestamp.dtype == np.int64
    assert set(ratings.rating) <= {half / 2 for half in range(1, 11)}
    assert ratings.userId.nunique() == SMALL.users
    assert ratings.movieId.nunique() <= SMALL.items
    assert (ratings[["userId", "movieId", "timestamp"]] > 0).all(axis=None)
    assert not ratings.duplicated(["userId", "movieId"]).any()
    assert ratings.userId.is_monotonic_increasing


def test_the_file_is_that_of_movielens_in_form(tmp_path):
    path, said = generated(tmp_path)
    ratings = pd.read_csv(path)
    check(ratings)
    assert said == [f"Generated {path}: {len(ratings):,} ratings of 300 users."]


def test_blocks_of_users_join_without_a_seam(tmp_path):
    path = tmp_path / "ratings.csv"
    synthetic._write(path, tmp_path / "movies.csv", SMALL, 0, block_users=7)
    check(pd.read_csv(path))


def test_some_items_are_far_more_popular_than_others(tmp_path):
    popularity = pd.read_csv(generated(tmp_path)[0]).movieId.value_counts()
    assert popularity.iloc[0] > 3 * popularity.median()


@pytest.mark.parametrize("change", ["seed", "population", "note", "no note", "no file"])
def test_anything_else_there_is_generated_again(tmp_path, monkeypatch, change):
    path, _ = generated(tmp_path / "fresh", 1)
    fresh = path.read_bytes()
    path, _ = generated(tmp_path, 0 if change == "seed" else 1)
    note = path.with_suffix(".json")
    if change == "population":
        monkeypatch.setitem(POPULATIONS, "small", dataclasses.replace(SMALL, users=200))
    elif change == "note":
        note.write_text(note.read_text()[:-9])
    elif change == "no note":
        note.unlink()
    elif change == "no file":
        path.unlink()
    assert generated(tmp_path, 1)[1][0].startswith("Generated ")
    assert (path.read_bytes() == fresh) == (change != "population")
    assert generated(tmp_path, 1)[1][0].endswith(" is already generated.")


@pytest.mark.parametrize("step", ["the rows", "the note"])
def test_a_crash_while_writing_leaves_no_file_that_counts(tmp_path, monkeypatch, step):
    class Crash(BaseException):
        pass

    def crash(path, *args, **kwargs):
        if path.suffix == ".csv":
            path.write_bytes(b"userId,movieId,rating,timestamp\n1,")
        raise Crash

    generated(tmp_path, 0)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_write" if step == "the rows" else "write_atomically", crash)
        with pytest.raises(Crash):
            generated(tmp_path, 1)
    for seed in (0, 1):
        shutil.copytree(tmp_path, tmp_path / f"crashed {seed}")
        path, said = generated(tmp_path / f"crashed {seed}", seed)
        assert said[0].startswith("Generated ")
        assert path.read_bytes() == generated(tmp_path / f"fresh {seed}", seed)[0].read_bytes()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/ratings.csv: cannot be written \(.*\); fix"):
        generated(tmp_path / "file")


def test_every_scale_of_the_command_line_has_its_population():
    assert set(POPULATIONS) - {"small"} == set(SCALES)


def test_the_demo_is_learnable_by_its_clusters(tmp_path):
    # Two users who share a favourite item share more of the others than chance would have it.
    ratings = pd.read_csv(generated(tmp_path, scale="demo")[0])
    liked = ratings[ratings.rating >= 4]
    assert liked.userId.nunique() == POPULATIONS["demo"].users
    users, items = pd.factorize(liked.userId)[0], pd.factorize(liked.movieId)[0]
    matrix = np.zeros((users.max() + 1, items.max() + 1), np.float32)
    matrix[users, items] = 1
    together = matrix.T @ matrix
    popularity = np.diag(together).copy()
    by_chance = np.outer(popularity, popularity) / len(matrix)
    np.fill_diagonal(together, 0)
    often = by_chance >= 5
    assert (together > 3 * by_chance)[often].mean() > 0.02
