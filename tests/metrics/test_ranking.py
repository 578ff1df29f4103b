"""NDCG and recall against slow references, and in edge cases."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from vae.metrics.aggregate import Mean
from vae.metrics.ranking import ndcg, recall
from vae.metrics.user_results import UserResults


def slow_ndcg(ranking: list[int], targets: set[int], k: int) -> float:
    if not targets:
        return math.nan
    gain = sum(1 / math.log2(r + 2) for r, item in enumerate(ranking[:k]) if item in targets)
    ideal = sum(1 / math.log2(r + 2) for r in range(min(k, len(targets))))
    return gain / ideal


def slow_recall(ranking: list[int], targets: set[int], k: int) -> float:
    if not targets:
        return math.nan
    return len(targets & set(ranking[:k])) / min(k, len(targets))


def matrix(rows: list[set[int]], items: int) -> csr_matrix:
    dense = np.zeros((len(rows), items), np.uint8)
    for user, row in enumerate(rows):
        dense[user, list(row)] = 1
    return csr_matrix(dense)


@st.composite
def rankings(draw):
    """Number of items, rankings of them that may end early, and the targets of each user."""
    items = draw(st.integers(1, 30))
    users = draw(st.integers(0, 8))
    depth = draw(st.integers(1, items))
    ranked, targets = [], []
    for _ in range(users):
        order = draw(st.permutations(range(items)))[:depth]
        length = draw(st.integers(0, depth))
        ranked.append(order[:length] + [-1] * (depth - length))
        targets.append(draw(st.sets(st.integers(0, items - 1))))
    return items, np.array(ranked, np.int32).reshape(users, depth), targets


@given(rankings(), st.integers(1, 40))
def test_metrics_equal_the_slow_reference(case, k):
    items, ranking, targets = case
    lists = ranking.tolist()
    target_matrix = matrix(targets, items)
    expected_ndcg = [slow_ndcg(r, s, k) for r, s in zip(lists, targets, strict=True)]
    expected_recall = [slow_recall(r, s, k) for r, s in zip(lists, targets, strict=True)]
    np.testing.assert_allclose(ndcg(ranking, target_matrix, k), expected_ndcg, rtol=1e-12)
    np.testing.assert_allclose(recall(ranking, target_matrix, k), expected_recall, rtol=1e-12)


@pytest.mark.parametrize(
    ("ranking", "targets", "expected"),
    [([3, 1, -1, -1], {1, 3}, 1), ([-1, -1], {4}, 0), ([0, 1], set(), math.nan)],
    ids=["a short perfect ranking", "-1 is not the last item", "no targets"],
)
@pytest.mark.parametrize("metric", [ndcg, recall])
def test_known_values(metric, ranking, targets, expected):
    found = metric(np.array([ranking]), matrix([targets], 5), len(ranking))
    assert found == pytest.approx([expected], nan_ok=True)


@pytest.mark.parametrize(
    ("rank", "counted"),
    [
        (20, {"ndcg@100", "recall@20", "recall@50"}),
        (21, {"ndcg@100", "recall@50"}),
        (50, {"ndcg@100", "recall@50"}),
        (51, {"ndcg@100"}),
        (100, {"ndcg@100"}),
        (101, set()),
    ],
)
def test_a_target_counts_up_to_the_cutoff_in_the_name_of_the_metric(rank, counted):
    results = UserResults.of(np.arange(120)[np.newaxis], matrix([{rank - 1}], 120))
    assert {name for name, one in results.metrics.items() if one.mean > 0} == counted


def test_a_catalogue_shorter_than_the_cutoffs_is_ranked_whole():
    ranking = np.array([[2, 0, 1]])
    assert UserResults.of(ranking, matrix([{2}], 3)).metrics["ndcg@100"].mean == 1.0


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=30))
def test_the_mean_and_its_error_are_those_of_the_users_with_a_value(values):
    users, *found = Mean.of(np.array(values, float))
    defined = [value for value in values if not math.isnan(value)]
    mean = statistics.mean(defined) if defined else math.nan
    error = statistics.stdev(defined) / math.sqrt(len(defined)) if len(defined) > 1 else math.nan
    assert users == len(defined)
    assert found == pytest.approx([mean, error], abs=1e-12, nan_ok=True)
