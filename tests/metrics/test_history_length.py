"""A metric by quartiles of the history's length against a slow reference."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae.metrics.history_length import QUARTILES, by_quartile, quartile_bounds

USERS = st.lists(
    st.tuples(st.integers(0, 12), st.floats(0, 1) | st.just(math.nan)), min_size=1, max_size=40
)


def slow_quartile(length, lengths):
    """How many of the three quartiles of all lengths a length exceeds."""
    ordered = sorted(lengths)
    bounds = [ordered[math.ceil(len(ordered) * share) - 1] for share in (0.25, 0.5, 0.75)]
    return sum(length > bound for bound in bounds)


@settings(max_examples=200, deadline=None)
@given(USERS, st.integers(0, 40))
def test_each_user_with_targets_counts_in_the_quartile_of_their_length(users, cut):
    lengths, scores = (np.array(column) for column in zip(*users, strict=True))
    bounds = quartile_bounds(lengths)
    # Two shards of the users add up.
    shards = (slice(0, cut), slice(cut, None))
    halves = [by_quartile(scores[part], lengths[part], bounds) for part in shards]
    assert len(halves[0]) == QUARTILES
    for number, (one, other) in enumerate(zip(*halves, strict=True)):
        of_quartile = [
            score
            for length, score in users
            if slow_quartile(length, lengths.tolist()) == number and not math.isnan(score)
        ]
        moments = one + other
        assert moments.users == len(of_quartile)
        expected = np.mean(of_quartile) if of_quartile else math.nan
        assert moments.mean == pytest.approx(expected, nan_ok=True)


def test_quartiles_of_distinct_lengths_have_equally_many_users():
    lengths = np.random.default_rng(0).permutation(20)
    moments = by_quartile(lengths / 20, lengths, quartile_bounds(lengths))
    assert [one.users for one in moments] == [5, 5, 5, 5]
    assert [one.mean for one in moments] == pytest.approx([0.1, 0.35, 0.6, 0.85])


def test_equal_lengths_share_a_quartile():
    lengths = np.array([3, 3, 3, 3])
    moments = by_quartile(np.ones(4), lengths, quartile_bounds(lengths))
    assert [one.users for one in moments] == [4, 0, 0, 0]
