"""The fused last layer and likelihood against float64, finite differences and itself in slices."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from models.reference import log_softmax

from vae.models.graph.loss import kl_weight, multinomial_nll
from vae.models.graph.sparse_input import SparseBatch

HIDDEN, ITEMS, COLUMNS = 5, 13, 16


def random_users(rng, users):
    return [
        np.sort(rng.choice(ITEMS, rng.integers(1, ITEMS + 1), replace=False)) for _ in range(users)
    ]


def layer(rng):
    kernel = rng.normal(size=(HIDDEN, COLUMNS))
    bias = np.where(np.arange(COLUMNS) < ITEMS, rng.normal(size=COLUMNS), -np.inf)
    return kernel, bias


def build(hidden, kernel, bias, users, weight=1.0, **slices):
    histories = SparseBatch.of(
        tf.constant(np.concatenate([np.array([], np.int64), *users])),
        tf.constant([len(items) for items in users], tf.int32),
    )
    inputs = [tf.constant(value, tf.float32) for value in (hidden, kernel, bias)]
    slices.setdefault("max_users", max(1, len(users)))
    value = multinomial_nll(*inputs, histories, tf.constant(weight), **slices)
    return value, inputs


def run(hidden, kernel, bias, users, weight=1.0, **slices):
    with tf.Graph().as_default(), tf.Session() as session:
        value, inputs = build(hidden, kernel, bias, users, weight, **slices)
        return session.run([value, *tf.gradients(value, inputs)])


def reference(hidden, kernel, bias, users):
    value, by_hidden, by_kernel, by_bias = 0.0, np.zeros_like(hidden), np.zeros_like(kernel), 0.0
    for row, items in enumerate(users):
        log_p = log_softmax(hidden[row] @ kernel + bias)
        value -= log_p[items].sum()
        by_logits = len(items) * np.exp(log_p)
        by_logits[items] -= 1
        by_hidden[row] = kernel @ by_logits
        by_kernel += np.outer(hidden[row], by_logits)
        by_bias = by_bias + by_logits
    return value, by_hidden, by_kernel, by_bias


@pytest.mark.parametrize("chunk_users", [100, 7, 3, 1])
def test_value_and_gradients_equal_float64(chunk_users):
    rng = np.random.default_rng(1)
    hidden, (kernel, bias), users = rng.normal(size=(7, HIDDEN)), layer(rng), random_users(rng, 7)
    results = run(hidden, kernel, bias, users, chunk_users=chunk_users)
    for result, expected in zip(results, reference(hidden, kernel, bias, users), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-5)


def test_the_gradient_equals_finite_differences():
    rng = np.random.default_rng(2)
    hidden, (kernel, bias), users = rng.normal(size=(3, HIDDEN)), layer(rng), random_users(rng, 3)
    with tf.Graph().as_default(), tf.Session():
        value, inputs = build(hidden, kernel, bias, users)
        for tensor in inputs[:2]:
            analytic, numeric = tf.test.compute_gradient(
                tensor, tensor.shape, value, [], delta=1e-2, x_init_value=tensor.eval()
            )
            np.testing.assert_allclose(analytic, numeric, atol=2e-2)


@pytest.mark.parametrize("gap", [0, 20, 80, 200])
def test_logits_far_apart_neither_overflow_nor_lose_the_loss(gap):
    hidden = np.array([[float(gap), 0, 0, 0, 0]])
    kernel = np.zeros((HIDDEN, COLUMNS))
    kernel[0, 3] = 1.0
    bias = layer(np.random.default_rng(0))[1]
    users = [np.array([5])]
    value, by_hidden, _, _ = run(hidden, kernel, bias, users)
    expected, expected_by_hidden, _, _ = reference(hidden, kernel, bias, users)
    smallest = -np.log(np.finfo(np.float32).tiny)  # 87.3 nats: what the docstring promises
    assert value == pytest.approx(min(expected, smallest), rel=1e-5)
    np.testing.assert_allclose(by_hidden, expected_by_hidden, atol=1e-5)


def test_padded_columns_have_no_gradient():
    rng = np.random.default_rng(3)
    users = random_users(rng, 4)
    _, _, by_kernel, by_bias = run(rng.normal(size=(4, HIDDEN)), *layer(rng), users)
    assert not by_kernel[:, ITEMS:].any()
    assert not by_bias[ITEMS:].any()


@pytest.mark.parametrize("max_users", [1, 5000])
def test_a_share_without_users_adds_nothing(max_users):
    rng = np.random.default_rng(4)
    results = run(np.zeros((0, HIDDEN)), *layer(rng), [], max_users=max_users)
    assert [np.abs(result).sum() for result in results] == [0, 0, 0, 0]


def test_the_kl_weight_rises_linearly_to_its_cap():
    with tf.Graph().as_default(), tf.Session() as session:
        steps = [0, 50, 100, 150, 10**6]
        weights = session.run([kl_weight(tf.constant(s, tf.int64), 1000, 0.1) for s in steps])
    np.testing.assert_allclose(weights, [0, 0.05, 0.1, 0.1, 0.1], rtol=1e-6)
