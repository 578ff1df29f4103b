"""Coverage, concentration and popularity of recommendations against slow references."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.metrics.exposure import coverage, gini, mean_popularity, recommendation_counts

ITEMS = 9
RANKINGS = st.lists(
    st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=5), min_size=1, max_size=8
)
COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=12)


def padded(lists):
    return np.array([[*items, *[-1] * (5 - len(items))] for items in lists])


@settings(max_examples=100, deadline=None)
@given(RANKINGS, st.integers(1, 5))
def test_each_item_is_counted_once_for_each_user_whose_first_k_have_it(lists, k):
    counts = [sum(item in items[:k] for items in lists) for item in range(ITEMS)]
    found = recommendation_counts(padded(lists), ITEMS, k)
    assert found.tolist() == counts
    assert coverage(found) == sum(count > 0 for count in counts) / ITEMS


@settings(max_examples=100, deadline=None)
@given(COUNTS)
def test_the_gini_index_is_half_the_relative_mean_difference(counts):
    found = gini(np.array(counts))
    if not sum(counts):
        assert math.isnan(found)
        return
    n = len(counts)
    differences = sum(abs(a - b) for a, b in itertools.product(counts, repeat=2))
    # Over the pairs of distinct items, of which there are n (n - 1).
    assert found == pytest.approx(differences / (n * (n - 1)) / (2 * sum(counts) / n))


@pytest.mark.parametrize(
    ("counts", "expected"), [([7, 7, 7], 0), ([0, 0, 9], 1), ([0, 5, 5], 0.5), ([3], math.nan)]
)
def test_known_gini_indices(counts, expected):
    assert gini(np.array(counts)) == pytest.approx(expected, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(COUNTS)
def test_percentiles_are_the_fraction_of_less_popular_items_and_half_of_equals(users_per_item):
    n = len(users_per_item)
    expected = [
        100 * (sum(b < a for b in users_per_item) + users_per_item.count(a) / 2) / n
        for a in users_per_item
    ]
    each = np.eye(n, dtype=int)
    percentiles = [mean_popularity(counts, np.array(users_per_item)) for counts in each]
    np.testing.assert_allclose(percentiles, expected)
    assert np.mean(percentiles) == pytest.approx(50)


def test_the_mean_popularity_is_over_recommendations():
    users_per_item = np.array([1, 5, 9])
    counts = recommendation_counts(np.array([[2, 1], [2, -1]]), 3, 2)
    # Percentiles 1/6, 3/6, 5/6; item 2 is recommended twice, item 1 once.
    assert mean_popularity(counts, users_per_item) == pytest.approx(100 * (13 / 6) / 3)
    nothing = recommendation_counts(np.empty((0, 2), int), 3, 2)
    assert math.isnan(mean_popularity(nothing, users_per_item))
    assert coverage(nothing) == 0
    assert math.isnan(gini(nothing))
