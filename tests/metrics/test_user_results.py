"""A model beside others on the same users: shards add up, and each number is what its name says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from vae.metrics.user_results import QUARTILE_METRICS, Comparison, UserResults

USERS, ITEMS = 23, 130


def targets_and_rankings():
    rng = np.random.default_rng(0)
    targets = (rng.random((USERS, ITEMS)) < 0.05).astype(np.uint8)
    targets[3] = 0  # a user without targets
    rankings = [np.array([rng.permutation(ITEMS)[:100] for _ in range(USERS)]) for _ in range(2)]
    rankings[0][5, 7:] = -1  # a user with little left
    return csr_matrix(targets), rankings


def compare():
    targets, rankings = targets_and_rankings()
    rng = np.random.default_rng(1)
    model, other = (UserResults.of(ranking, targets) for ranking in rankings)
    lengths, popularity = rng.integers(5, 60, USERS), rng.integers(1, 90, ITEMS)
    return Comparison(model, {"ease": other}, {"ease_lambda": 9.0}, lengths, popularity, 1)


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
    for name, values in whole.values.items():
        np.testing.assert_allclose(joined.values[name], values, rtol=1e-12)
    np.testing.assert_array_equal(joined.counts, whole.counts)
    assert UserResults.concatenate([], ITEMS).metrics["ndcg@100"].users == 0


def test_the_summary_has_means_differences_exposure_and_quartiles():
    result = compare()
    summary = result.summary()
    model, other = (results.values["ndcg@100"] for results in (result.model, result.others["ease"]))
    scored = ~np.isnan(model)
    assert summary["test_users"] == scored.sum() == USERS - 1
    assert summary["test_ndcg@100"] == pytest.approx(model[scored].mean())
    assert summary["ease_ndcg@100"] == pytest.approx(other[scored].mean())
    difference = (model - other)[scored]
    assert summary["test_minus_ease_ndcg@100"] == pytest.approx(difference.mean())
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    assert summary["test_minus_ease_ndcg@100_se"] == pytest.approx(error)
    recommended = result.model.counts > 0
    assert summary["test_coverage@100"] == recommended.mean()
    assert 0 < summary["test_gini@100"] < 1
    assert 0 < summary["ease_mean_popularity@100"] < 100
    shortest = scored & (result.lengths <= np.sort(result.lengths)[math.ceil(USERS / 4) - 1])
    assert summary["test_ndcg@100_quartile_1"] == pytest.approx(model[shortest].mean())
    assert summary["ease_lambda"] == 9


def quartiles(lengths, values):
    results = UserResults({"ndcg@100": np.array(values)}, np.zeros(1, np.int64))
    means = results.quartiles(np.array(lengths))
    assert tuple(means) == QUARTILE_METRICS
    return list(means.values())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.floats(0, 1) | st.just(math.nan)), min_size=1, max_size=40
    )
)
def test_each_user_with_targets_counts_in_the_quartile_of_their_length(users):
    lengths, values = (list(column) for column in zip(*users, strict=True))
    ordered = sorted(lengths)
    bounds = [ordered[math.ceil(len(ordered) * quarters / 4) - 1] for quarters in (1, 2, 3)]
    for number, mean in enumerate(quartiles(lengths, values)):
        of_quartile = [
            value
            for length, value in users
            if sum(length > bound for bound in bounds) == number and not math.isnan(value)
        ]
        assert mean.users == len(of_quartile)
        expected = np.mean(of_quartile) if of_quartile else math.nan
        assert mean.mean == pytest.approx(expected, nan_ok=True)


def test_distinct_lengths_have_equally_many_users_and_equal_ones_share_a_quartile():
    lengths = np.random.default_rng(0).permutation(20)
    means = quartiles(lengths, lengths / 20)
    assert [one.users for one in means] == [5, 5, 5, 5]
    assert [one.mean for one in means] == pytest.approx([0.1, 0.35, 0.6, 0.85])
    assert [one.users for one in quartiles([3] * 4, np.ones(4))] == [4, 0, 0, 0]
