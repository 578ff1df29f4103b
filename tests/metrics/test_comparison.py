"""A model beside others on the same users: shards add up, and each number is what its name says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from vae.metrics.comparison import Comparison, UserResults

USERS, ITEMS = 23, 130


def targets_and_rankings():
    rng = np.random.default_rng(0)
    targets = (rng.random((USERS, ITEMS)) < 0.05).astype(np.uint8)
    targets[3] = 0  # a user without targets
    rankings = [np.array([rng.permutation(ITEMS)[:100] for _ in range(USERS)]) for _ in range(2)]
    rankings[0][5, 7:] = -1  # a user with little left
    return csr_matrix(targets), rankings


@pytest.fixture
def result():
    targets, rankings = targets_and_rankings()
    rng = np.random.default_rng(1)
    model, other = (UserResults.of(ranking, targets) for ranking in rankings)
    lengths, popularity = rng.integers(5, 60, USERS), rng.integers(1, 90, ITEMS)
    titles = {"ease": "EASE"}
    return Comparison(model, {"ease": other}, titles, {"ease_lambda": 9.0}, lengths, popularity, 1)


@pytest.mark.parametrize("shards", [1, 2, 3, 30])
def test_the_results_of_shards_are_those_of_all_users(shards):
    targets, (ranking, _) = targets_and_rankings()
    whole = UserResults.of(ranking, targets)
    parts = [
        UserResults.of(ranking[rows], targets[rows])
        for rows in np.array_split(np.arange(USERS), shards)
        if len(rows)
    ]
    joined = UserResults.concatenate(parts, ITEMS)
    for name, scores in whole.scores.items():
        np.testing.assert_allclose(joined.scores[name], scores, rtol=1e-12)
    np.testing.assert_array_equal(joined.exposure.counts, whole.exposure.counts)
    assert UserResults.concatenate([], ITEMS).metrics["ndcg@100"].users == 0


def test_the_summary_has_means_differences_exposure_and_quartiles(result):
    summary = result.summary()
    model, other = (results.scores["ndcg@100"] for results in (result.model, result.others["ease"]))
    scored = ~np.isnan(model)
    assert summary["test_users"] == scored.sum() == USERS - 1
    assert summary["test_ndcg@100"] == pytest.approx(model[scored].mean())
    assert summary["ease_ndcg@100"] == pytest.approx(other[scored].mean())
    difference = (model - other)[scored]
    assert summary["test_minus_ease_ndcg@100"] == pytest.approx(difference.mean())
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    assert summary["test_minus_ease_ndcg@100_se"] == pytest.approx(error)
    recommended = result.model.exposure.counts > 0
    assert summary["test_coverage@100"] == recommended.mean()
    assert 0 < summary["test_gini@100"] < 1
    assert 0 < summary["ease_mean_popularity@100"] < 100
    shortest = scored & (result.lengths <= np.sort(result.lengths)[math.ceil(USERS / 4) - 1])
    assert summary["test_ndcg@100_quartile_1"] == pytest.approx(model[shortest].mean())
    assert summary["ease_lambda"] == 9


def test_the_table_shows_all_of_it(result):
    summary, lines = result.summary(), result.table().splitlines()
    assert lines[0] == "Test on 23 held-out users, 22 of them with targets:"
    rows = {line[:20].strip(): line[20:].split() for line in lines if not line.endswith(":")}
    assert f"{summary['test_coverage@100']:.1%}" in rows["coverage@100"]
    shortest, longest = min(result.lengths), max(result.lengths)
    (first,) = (name for name in rows if name.startswith(f"{shortest} to "))
    assert f"{summary['ease_ndcg@100_quartile_1']:.5f}" in rows[first]
    assert any(name.endswith(f" to {longest}") for name in rows)
    assert f"{summary['test_minus_ease_recall@20']:+.5f}" in rows["recall@20"]  # the last table's


@pytest.mark.parametrize(
    ("lengths", "ranges"),
    [
        ([40] * USERS, ["40 to 40"]),
        ([7] * 3 + [40] * 18 + [55, 60], ["7 to 40", "41 to 60"]),  # the quartiles are 40, 40, 40
        ([7] * 12 + [40] * 11, ["7 to 7", "8 to 40"]),
    ],
)
def test_the_table_leaves_out_quartiles_without_users(result, lengths, ranges):
    table = replace(result, lengths=np.array(lengths)).table()
    rows = table.partition("by the number of items in the history:\n")[2].splitlines()[1:]
    assert [row[:20].strip() for row in rows] == ranges
    assert "nan" not in table


def test_without_a_baseline_there_is_no_difference(result):
    alone = Comparison(result.model, {}, {}, {}, result.lengths, result.users_per_item, 1)
    assert "minus" not in alone.table()
