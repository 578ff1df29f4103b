"""--score: scores and ranks of given users and items, against brute force and --recommend."""

import numpy as np
import pandas as pd
import pytest
from helpers import error_of, log_lines, output_of
from recommend.expected import USERS, best, mask

import vae


@pytest.fixture(scope="module")
def blended(run, demo_data):
    with vae.Recommender.load(run[0] / "ckpt", demo_data, "synthetic", blend="ease") as recommender:
        yield recommender


def test_the_command_scores_each_row_in_its_place(
    on_model, dataset, weights, histories, tmp_path, movies
):
    ids, table = dataset.item_ids, histories[histories.userId < USERS]
    table.to_csv(tmp_path / "h.csv", index=False)
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"movieId": rng.choice(ids, 300), "userId": rng.integers(0, USERS, 300)})
    known = table[table.userId != 3][["movieId", "userId"]]
    pairs = pd.concat([pairs, known[::5]]).astype(object)
    pairs = pairs.sample(frac=1, random_state=0, ignore_index=True)
    pairs.loc[[7, 9], "userId"], pairs.loc[8, "movieId"] = "nobody", 10**8
    pairs.assign(rating=1).to_csv(tmp_path / "pairs.tsv", sep="\t", index=False)
    out = output_of(
        on_model(
            "--score", tmp_path / "pairs.tsv", "--output", tmp_path / "s.csv.gz",
            "--recommend", tmp_path / "h.csv", "--item_names", movies, "--log_path", tmp_path / "l",
        )
    )  # fmt: skip
    counts = "342 users and items to score; of unknown users, without a score: 2; of unknown items"
    assert counts in out
    logged = log_lines(tmp_path / "l")[-1]["data"]
    assert (logged["score_pairs"], logged["score_unknown_pairs"]) == (len(pairs), 3)
    rows = pd.read_csv(tmp_path / "s.csv.gz", dtype={"userId": str})
    assert list(rows) == ["userId", "movieId", "rank", "score", "source", "title"]
    assert (rows[["movieId", "userId"]] == pairs.astype({"userId": str})).all(axis=None)
    assert rows.loc[7:9, ["rank", "score", "source"]].isna().all(axis=None)
    unseen = np.zeros(len(ids), bool)
    for user in range(USERS):
        seen = mask(dataset, table, user)
        order, _ = best(dataset, weights, seen, seen, len(ids))
        everything, scores = best(dataset, weights, seen, unseen, len(ids))
        score_of = pd.Series(scores, everything)
        for row in rows[rows.source.notna() & (rows.userId == str(user))].itertuples():
            assert row.score == pytest.approx(score_of[row.movieId], abs=1e-4)
            assert row.source == ("model" if seen.any() else "popular")
            assert pd.isna(row.rank) == (row.movieId in ids[seen])
            if not pd.isna(row.rank):  # rounding may exchange items with almost the same score
                at_rank = score_of[order[int(row.rank) - 1]]
                assert row.score == pytest.approx(at_rank, abs=1e-4)
    assert rows["rank"].isna().sum() > 10


@pytest.mark.parametrize("name", ["recommender", "blended"])
def test_scores_are_those_of_the_recommendations(name, histories, dataset, request, monkeypatch):
    recommender = request.getfixturevalue(name)
    few = histories[histories.userId < USERS]
    monkeypatch.setattr("vae.recommend.recommender._BATCH_SCORES", 5 * recommender.items)
    expected = recommender.recommend(few, recommender.items)
    scored = recommender.score(expected.sample(frac=1, random_state=1), few)
    both = scored.merge(expected, on=["userId", "movieId"], suffixes=("", "_recommended"))
    assert len(both) == len(scored) == len(expected)
    assert (both["rank"] == both.rank_recommended).mean() > 0.999  # all but ties
    np.testing.assert_allclose(both.score, both.score_recommended, rtol=1e-5, atol=1e-5)
    assert (both.source == both.source_recommended).all()


def test_histories_are_the_prepared_ones_unless_they_are_given(recommender, dataset):
    user, ids = dataset.train_user_ids[4], dataset.item_ids
    rows = recommender.score(pd.DataFrame({"userId": user, "movieId": ids}))
    np.testing.assert_array_equal(rows["rank"].isna(), dataset.train[4].toarray()[0] > 0)
    assert sorted(rows["rank"].dropna()) == [*range(1, 1 + rows["rank"].notna().sum())]
    history = ids[dataset.train[4].indices]
    alone = recommender.score([*map(str, ids), "no film"], history.tolist())
    assert alone.iloc[-1].isna()[["rank", "score", "source"]].all()
    pd.testing.assert_series_equal(alone["rank"][:-1], rows["rank"])
    unknown = recommender.score(pd.DataFrame({"userId": ["nobody"], "movieId": ids[:1]}))
    assert unknown.score.isna().all()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "--score pairs.csv: file not found"),
        ("userId,movieId\n", "--score pairs.csv: no rows"),
        ("userId,title\n1,2\n", "--score pairs.csv: has no column 'movieId'"),
        (
            "userId,movieId\n{user},abc\n",
            "pairs.csv: no id in its column 'movieId' is an item of",
        ),
        (
            "userId,movieId\nx,{item}\n",
            "pairs.csv: no id in its column 'userId' is a user wi",
        ),
    ],
)
def test_a_file_without_anything_to_score_is_refused(
    content, sentence, on_model, dataset, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if content:
        known = {"user": dataset.train_user_ids[0], "item": dataset.item_ids[0]}
        (tmp_path / "pairs.csv").write_text(content.format(**known))
    before = sorted(tmp_path.iterdir())
    assert sentence in error_of(on_model("--score", "pairs.csv", "--output", "s.csv"))
    assert sorted(tmp_path.iterdir()) == before
