"""EASE and item-kNN against slow and obvious references."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from vae.baselines.ease import LAMBDAS, Ease, choose_lambda
from vae.baselines.itemknn import item_similarities
from vae.load.dataset import HeldOut
from vae.metrics.ranking import ndcg

ITEMS = 11

BLOCKS = [4, 1024]
"""Items per block: several blocks, the last of them shorter, and a single one."""


def interactions(users=40, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((users, ITEMS)) < rng.uniform(0.1, 0.6, ITEMS)).astype(np.uint8)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("lambda_", [0.5, 30.0])
def test_ease_is_the_ridge_regression_of_each_item_on_the_others(lambda_, block):
    train = interactions().astype(float)
    weights = Ease(csr_matrix(train), items_per_block=block).item_weights(lambda_)
    for item in range(ITEMS):
        others = np.delete(np.arange(ITEMS), item)
        x, y = train[:, others], train[:, item]
        expected = np.linalg.solve(x.T @ x + lambda_ * np.eye(len(others)), x.T @ y)
        np.testing.assert_allclose(weights[others, item], expected, rtol=1e-4, atol=1e-6)
        assert weights[item, item] == 0


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("neighbours", "shrinkage"), [(3, 2.0), (ITEMS, 0.0)])
def test_item_knn_keeps_the_largest_shrunk_cosines(neighbours, shrinkage, block):
    train = interactions().astype(float)
    matrix = csr_matrix(train, dtype=np.uint8)
    found = item_similarities(matrix, neighbours, shrinkage, items_per_block=block).toarray()
    for item in range(ITEMS):
        cosines = {}
        for other in range(ITEMS):
            common = sum(train[:, item] * train[:, other])
            length = np.sqrt(sum(train[:, item]) * sum(train[:, other])) + shrinkage
            cosines[other] = 0 if other == item else common / length
        best = sorted(cosines, key=lambda other: (-cosines[other], other))[:neighbours]
        expected = [cosines[other] if other in best else 0 for other in range(ITEMS)]
        np.testing.assert_allclose(found[:, item], expected, rtol=1e-5)


def test_the_chosen_lambda_is_the_best_on_the_validation_users():
    train, held_out = interactions(200, seed=1), interactions(50, seed=2)
    targets = held_out & (np.random.default_rng(3).random(held_out.shape) < 0.3)
    users = HeldOut(csr_matrix(held_out - targets), csr_matrix(targets), np.arange(50))
    ease = Ease(csr_matrix(train))
    means = {}
    for lambda_ in LAMBDAS:
        scores = (held_out - targets) @ ease.item_weights(lambda_)
        scores[(held_out - targets) == 1] = -np.inf
        ranking = np.argsort(-scores, axis=1, kind="stable")
        ranking[np.isneginf(np.take_along_axis(scores, ranking, axis=1))] = -1
        means[lambda_] = np.nanmean(ndcg(ranking, users.targets, 100))
    assert choose_lambda(ease, users) == max(means, key=means.get)
    assert len(set(means.values())) > 1
