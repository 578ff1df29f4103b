"""The fused last layer and likelihood against float64, finite differences and itself in slices."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from models.reference import log_softmax

from vae.models.graph.loss import multinomial_nll
from vae.models.graph.sparse_input import SparseBatch

HIDDEN, ITEMS, PADDED = 5, 13, 16


def problem(seed, users):
    """Hidden layers, a kernel, a bias and the users' items, at random."""
    rng = np.random.default_rng(seed)
    bias = np.where(np.arange(PADDED) < ITEMS, rng.normal(size=PADDED), -np.inf)
    items = [np.sort(rng.permutation(ITEMS)[: rng.integers(1, ITEMS + 1)]) for _ in range(users)]
    return rng.normal(size=(users, HIDDEN)), rng.normal(size=(HIDDEN, PADDED)), bias, items


def build(hidden, kernel, bias, users, **more):
    """The value, times the loss scale if there is one, and the inputs that it depends on."""
    histories = SparseBatch.of(
        tf.constant(np.concatenate([np.array([], np.int64), *users])),
        tf.constant([len(items) for items in users], tf.int32),
    )
    inputs = [tf.constant(value, tf.float32) for value in (hidden, kernel, bias)]
    more = {"max_users": max(1, len(users))} | more
    scale = more.pop("loss_scale", None)
    if scale is not None:
        more["loss_scale"] = tf.constant(scale)
    value = multinomial_nll(*inputs, histories, tf.constant(1.0), **more)
    return value if scale is None else value * scale, inputs


def run(*arguments, **more):
    """The value and its gradients."""
    with tf.Graph().as_default(), tf.Session() as session:
        value, inputs = build(*arguments, **more)
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
def test_value_and_gradients_equal_float64_and_padded_items_have_none(chunk_users, monkeypatch):
    monkeypatch.setattr("vae.models.graph.loss.users_per_chunk", lambda _: chunk_users)
    inputs = problem(1, users=7)
    results = run(*inputs)
    for result, expected in zip(results, reference(*inputs), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-5)
    assert not results[2][:, ITEMS:].any()
    assert not results[3][ITEMS:].any()


def test_the_gradient_equals_finite_differences():
    with tf.Graph().as_default(), tf.Session():
        value, inputs = build(*problem(2, users=3))
        for tensor in inputs[:2]:
            analytic, numeric = tf.test.compute_gradient(
                tensor, tensor.shape, value, [], delta=1e-2, x_init_value=tensor.eval()
            )
            np.testing.assert_allclose(analytic, numeric, atol=2e-2)


@pytest.mark.parametrize("gap", [0, 20, 80, 200])
def test_logits_far_apart_neither_overflow_nor_lose_the_loss(gap):
    hidden = np.array([[float(gap), 0, 0, 0, 0]])
    kernel = np.zeros((HIDDEN, PADDED))
    kernel[0, 3] = 1.0
    bias = problem(0, users=1)[2]
    users = [np.array([5])]
    value, by_hidden, _, _ = run(hidden, kernel, bias, users)
    expected, expected_by_hidden, _, _ = reference(hidden, kernel, bias, users)
    smallest = -np.log(np.finfo(np.float32).tiny)  # 87.3 nats: what the docstring promises
    assert value == pytest.approx(min(expected, smallest), rel=1e-5)
    np.testing.assert_allclose(by_hidden, expected_by_hidden, atol=1e-5)


@pytest.mark.parametrize("max_users", [1, 5000])
def test_a_shard_without_users_adds_nothing(max_users):
    results = run(*problem(4, users=0), max_users=max_users)
    assert [np.abs(result).sum() for result in results] == [0, 0, 0, 0]
