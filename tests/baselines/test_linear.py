"""EASE and item-kNN against slow and obvious references."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, vstack

from vae.baselines import itemknn
from vae.baselines.ease import MIN_WEIGHTS, Ease, weights_per_item
from vae.baselines.ease_choice import MAX_FITS, climb, fit_ease
from vae.baselines.gram import invert
from vae.errors import UserError
from vae.load.dataset import HeldOut
from vae.metrics.ranking import ndcg
from vae.utils.run_log import RunLog

ITEMS = 11


def interactions(users=40, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((users, ITEMS)) < rng.uniform(0.1, 0.6, ITEMS)).astype(np.uint8)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 30), st.integers(2, 30), st.sampled_from([0.5, 30.0]),
    st.sampled_from([0, 0.3, 0.9]), st.sampled_from([4, 1024]), st.integers(0, 1000),
)  # fmt: skip
def test_ease_is_the_ridge_regression_of_each_item_on_the_others(
    users, items, lambda_, dropout, block, seed
):
    """By items or users, whichever are fewer, before and after the weights are computed."""
    rng = np.random.default_rng(seed)
    train, histories = (rng.random((rows, items)) < 0.3 for rows in (users, 5))
    train[rng.integers(users, size=items), np.arange(items)] = True
    train = train.astype(float)
    penalty = lambda_ + train.sum(axis=0) * dropout / (1 - dropout)
    expected = np.zeros((items, items))
    for item in range(items):
        others = np.delete(np.arange(items), item)
        x, y = train[:, others], train[:, item]
        expected[others, item] = np.linalg.solve(x.T @ x + np.diag(penalty[others]), x.T @ y)
    ease = Ease(csr_matrix(train), lambda_, dropout, block=block)
    scores = ease.scores(csr_matrix(histories, dtype=np.float32))
    np.testing.assert_allclose(scores, histories @ expected, rtol=1e-4, atol=1e-5)
    for kept in (items, (items + 1) // 2):
        values, indices = ease.largest_weights(kept)
        pruned = np.zeros((items, items))
        np.put_along_axis(pruned, indices.astype(int), values, axis=1)
        smallest = -np.sort(-np.abs(expected), axis=1)[:, [kept - 1]]
        largest = np.where(np.abs(expected) > smallest - 1e-5, expected, 0)
        ties = np.abs(np.abs(expected) - smallest) < 1e-5
        np.testing.assert_allclose(pruned[~ties], largest[~ties], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ease.item_weights(), expected, rtol=1e-4, atol=1e-6)
    assert not np.diagonal(ease.item_weights()).any()
    again = ease.scores(csr_matrix(histories, dtype=np.float32))
    np.testing.assert_allclose(again, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("lambda_", "dropout"), [(10, 0), (50, 0.5)])
def test_on_real_data_both_systems_are_those_of_float64(ratings_of_movielens, lambda_, dropout):
    ratings = pd.read_csv(ratings_of_movielens)
    coordinates = ratings.userId.factorize()[0], ratings.movieId.factorize()[0]
    matrix = csr_matrix((np.ones(len(ratings)), coordinates))
    train = matrix[:, np.bincount(matrix.indices) >= 20]
    users, items = train.shape
    assert users < items
    users_per_item = np.ravel(train.sum(axis=0))
    penalty = lambda_ + users_per_item * dropout / (1 - dropout)
    inverse = np.linalg.inv((train.T @ train).toarray() + np.diag(penalty))
    expected = -inverse / np.diagonal(inverse)
    np.fill_diagonal(expected, 0)
    # Users without an item change nothing but which system is the smaller one.
    for data in (train, vstack([train, csr_matrix((items, items))], "csr")):
        ease = Ease(data, lambda_, dropout)
        scores = ease.scores(train.astype(np.float32))
        np.testing.assert_allclose(scores, train @ expected, atol=1e-3)
        np.testing.assert_allclose(ease.item_weights(), expected, atol=1e-4)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_a_matrix_is_inverted_in_place_block_by_block(size, block, seed):
    half = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    matrix = half @ half.T + np.eye(size, dtype=np.float32)
    expected, done = np.linalg.inv(matrix.astype(float)), []
    invert(matrix, block, done.append)
    np.testing.assert_allclose(matrix, expected, atol=1e-4)
    assert sum(done) == 3 * size


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10**13))
def test_a_blend_keeps_as_many_weights_as_fit_and_all_only_beside_what_they_need(
    users, items, memory
):
    def needed(kept):
        inverse, weights = 4 * min(users, items) ** 2, (4 if kept == items else 8) * items * kept
        return weights if kept == items and users >= items else inverse + weights

    usable = 0.75 * memory
    if min(needed(items), needed(MIN_WEIGHTS)) > usable:
        sizes = f"{needed(items) / 1e9:.1f} GB of memory, {needed(MIN_WEIGHTS) / 1e9:.1f} GB"
        with pytest.raises(UserError, match=re.escape(sizes)):
            weights_per_item(users, items, memory)
        return
    kept = weights_per_item(users, items, memory)
    assert needed(kept) <= usable
    assert kept == items or usable < min(needed(kept + 1), needed(items))


def test_a_penalty_too_small_for_float32_is_refused():
    rng = np.random.default_rng(0)
    train = csr_matrix(rng.random((600, 700)) < rng.uniform(0, 0.9, 700))
    with pytest.raises(UserError, match=r"--ease_lambda 0.001: too small for the precision"):
        Ease(train, 1e-3)
    Ease(train, 10)


@given(st.integers(0, 11), st.integers(0, 3))
def test_hill_climbing_ends_on_the_only_peak_or_beside_it_with_few_values(lambda_, dropout):
    calls = []

    def value(x, y):
        calls.append((x, y))
        return -abs(x - lambda_) - abs(y - dropout)

    assert value(*climb(value, [range(12), range(4)])) >= -1
    calls.pop()
    assert len(set(calls)) == len(calls) < MAX_FITS


@pytest.mark.parametrize("block", [4, 1024])
@pytest.mark.parametrize(("neighbours", "shrinkage"), [(3, 2.0), (ITEMS, 0.0)])
def test_item_knn_keeps_the_largest_shrunk_cosines(neighbours, shrinkage, block, monkeypatch):
    monkeypatch.setattr(itemknn, "NEIGHBOURS", neighbours)
    monkeypatch.setattr(itemknn, "SHRINKAGE", shrinkage)
    train = interactions().astype(float)
    matrix = csr_matrix(train, dtype=np.uint8)
    found = itemknn.item_similarities(matrix, lambda items: None, block).toarray()
    for item in range(ITEMS):
        cosines = {}
        for other in range(ITEMS):
            common = sum(train[:, item] * train[:, other])
            length = np.sqrt(sum(train[:, item]) * sum(train[:, other])) + shrinkage
            cosines[other] = 0 if other == item else common / length
        best = sorted(cosines, key=lambda other: (-cosines[other], other))[:neighbours]
        expected = [cosines[other] if other in best else 0 for other in range(ITEMS)]
        np.testing.assert_allclose(found[:, item], expected, rtol=1e-5)


def test_what_is_not_given_is_chosen_on_the_validation_users(tmp_path, capsys):
    train, held_out = interactions(200, seed=1), interactions(50, seed=2)
    targets = held_out & (np.random.default_rng(3).random(held_out.shape) < 0.3)
    users = HeldOut(csr_matrix(held_out - targets), csr_matrix(targets), np.arange(50))
    data, log = SimpleNamespace(train=csr_matrix(train), validation=users), RunLog(tmp_path / "log")
    ease = fit_ease(data, None, None, log)
    tried = re.findall(r"lambda (\d+), dropout (\S+): .* ([\d.]+)\.\n", capsys.readouterr().out)
    assert len({value for *_, value in tried}) > 1
    for lambda_, dropout, value in tried:
        ease_tried = Ease(data.train, int(lambda_), float(dropout))
        scores = (held_out - targets) @ ease_tried.item_weights()
        scores[(held_out - targets) == 1] = -np.inf
        ranking = np.argsort(-scores, axis=1, kind="stable")
        ranking[np.isneginf(np.take_along_axis(scores, ranking, axis=1))] = -1
        assert value == f"{np.nanmean(ndcg(ranking, users.targets, 100)):.5f}"
    lambda_, dropout, _ = max(tried, key=lambda one: float(one[2]))
    assert [*ease.settings.values()] == [float(lambda_), float(dropout)]
    assert fit_ease(data, 7, None, log).settings["ease_lambda"] == 7
    assert fit_ease(data, None, 0.25, log).settings["ease_dropout"] == 0.25
