"""Coverage, concentration and popularity of recommendations against slow references."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.metrics.exposure import Exposure, popularity_percentiles

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
    exposure = Exposure.of(padded(lists), ITEMS, k)
    assert exposure.counts.tolist() == counts
    assert exposure.coverage == sum(count > 0 for count in counts) / ITEMS


@settings(max_examples=100, deadline=None)
@given(RANKINGS, RANKINGS)
def test_the_exposures_of_shards_add_up(first, second):
    both = Exposure.of(padded(first), ITEMS, 3) + Exposure.of(padded(second), ITEMS, 3)
    np.testing.assert_array_equal(both.counts, Exposure.of(padded(first + second), ITEMS, 3).counts)


@settings(max_examples=100, deadline=None)
@given(COUNTS)
def test_the_gini_index_is_half_the_relative_mean_difference(counts):
    gini = Exposure(np.array(counts)).gini
    if not sum(counts):
        assert math.isnan(gini)
        return
    n = len(counts)
    differences = sum(abs(a - b) for a, b in itertools.product(counts, repeat=2))
    # Over the pairs of distinct items, of which there are n (n - 1).
    assert gini == pytest.approx(differences / (n * (n - 1)) / (2 * sum(counts) / n))


@pytest.mark.parametrize(
    ("counts", "gini"), [([7, 7, 7], 0), ([0, 0, 9], 1), ([0, 5, 5], 0.5), ([3], math.nan)]
)
def test_known_gini_indices(counts, gini):
    assert Exposure(np.array(counts)).gini == pytest.approx(gini, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(COUNTS)
def test_percentiles_are_the_fraction_of_less_popular_items_and_half_of_equals(users_per_item):
    n = len(users_per_item)
    expected = [
        100 * (sum(b < a for b in users_per_item) + users_per_item.count(a) / 2) / n
        for a in users_per_item
    ]
    percentiles = popularity_percentiles(np.array(users_per_item))
    np.testing.assert_allclose(percentiles, expected)
    assert percentiles.mean() == pytest.approx(50)


def test_the_mean_popularity_is_over_recommendations():
    exposure = Exposure.of(np.array([[2, 1], [2, -1]]), 3, 2)
    # Percentiles 1/6, 3/6, 5/6; item 2 is recommended twice, item 1 once.
    assert exposure.mean_popularity(np.array([1, 5, 9])) == pytest.approx(100 * (13 / 6) / 3)
    nobody = Exposure.of(np.empty((0, 2), int), 3, 2)
    assert math.isnan(nobody.mean_popularity(np.array([1, 5, 9])))
    assert nobody.coverage == 0
    assert math.isnan(nobody.gini)
