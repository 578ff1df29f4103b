"""Sums over users' items, where some users or whole batches have none."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from models.reference import (
    BATCH,
    ITEMS,
    KeptGradients,
    ReferenceStep,
    flags,
    noise_of,
    small_step,
)

from vae.load.batches import Batch
from vae.models.graph.precision import BFLOAT16, FLOAT32
from vae.models.graph.sparse_input import placeholders


def spoil_memory(shapes):
    """An operation that leaves NaN in memory which tensors of these shapes then get."""
    one = tf.placeholder_with_default(1.0, [])  # keeps constant folding away
    return tf.group(*(tf.fill(shape, np.float32(np.nan)) * one for shape in shapes))


@pytest.mark.parametrize("device", ["CPU", "GPU"])
@pytest.mark.parametrize(
    ("items", "counts"), [([], []), ([], [0]), ([], [0, 0, 0]), ([2, 5, 0, 5], [2, 0, 2, 0])]
)
def test_a_sum_over_no_items_is_zero_and_so_is_its_gradient(items, counts, device, monkeypatch):
    # The operations of a GPU run on a CPU too.
    monkeypatch.setattr(tf.config, "list_physical_devices", {device: [device]}.get)
    history = np.zeros((len(counts), ITEMS), np.float32)
    history[np.repeat(np.arange(len(counts)), counts), items] = 1
    values = np.random.default_rng(0).integers(1, 9, (ITEMS, 64)).astype(np.float32)
    weights = 2.0 ** np.arange(len(counts))
    with tf.Graph().as_default(), tf.Session() as session:
        users, vectors = placeholders(), tf.constant(values)
        sums = tf.constant(weights[:, np.newaxis], tf.float32) * users.sum(vectors)
        (gradient,) = tf.gradients(sums, vectors)
        session.run(spoil_memory([values.shape]))
        found = session.run([sums, gradient], {users.items: items, users.counts: counts})
    np.testing.assert_array_equal(found[0], weights[:, np.newaxis] * (history @ values))
    np.testing.assert_array_equal(found[1], np.outer(weights @ history, np.ones(64)))


@pytest.mark.parametrize("device", ["CPU", "GPU"])
@pytest.mark.parametrize("max_users", [3, 2**31 // ITEMS + 1], ids=["few", "beyond int32"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_overwriting_adds_at_the_items_alone(device, max_users, dtype, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", {device: [device]}.get)
    items, counts = [2, 5, 0, 5], [2, 0, 2]
    expected = np.full((3, ITEMS), 0.25)
    expected[[0, 0, 2, 2], items] += [1, 2, 4, 8]
    with tf.Graph().as_default() as graph, tf.Session() as session:
        users = placeholders()
        matrix = tf.cast(tf.fill([users.users, ITEMS], 0.25), dtype)
        found = users.overwrite(matrix, tf.constant([1, 2, 4, 8], dtype), max_users)
        found = session.run(tf.cast(found, tf.float32), {users.items: items, users.counts: counts})
        kinds = {operation.type for operation in graph.get_operations()}
    np.testing.assert_array_equal(found, expected)
    assert ("InplaceAdd" in kinds) == (device == "CPU" and max_users == 3)


def lost_batch(counts):
    """Users of whose items none survives dropout."""
    counts = np.array(counts, np.int32)
    items = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)])
    return Batch(items, counts, np.zeros(len(items), bool), 0, BATCH, 3)


def gradients_of(batch, max_users, precision):
    """The step's gradients, computed in memory that held NaN, weights before it, and noise."""
    config, workers = flags(dropout=0.5), KeptGradients()
    with small_step(config, workers=workers, max_users=max_users, precision=precision) as (
        session,
        vae,
        step,
    ):
        weights = session.run({variable.op.name: variable for variable in vae.variables})
        noise = noise_of(session, config, batch)
        spoil = spoil_memory([value.shape for value in weights.values()])
        for _ in range(3):
            session.run(spoil)
        return session.run(workers.by_name, step.feed(batch)), weights, noise


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("max_users", [BATCH, 5000])
def test_a_shard_without_users_has_gradients_of_zero(max_users, precision):
    gradients, weights, _ = gradients_of(lost_batch([]), max_users, precision)
    for name, value in weights.items():
        np.testing.assert_array_equal(gradients[name], np.zeros_like(value), err_msg=name)


def test_users_who_lose_all_items_to_dropout_have_the_reference_s_gradients():
    batch = lost_batch([3, 1])
    gradients, weights, noise = gradients_of(batch, BATCH, FLOAT32)
    expected = ReferenceStep(weights, flags(dropout=0.5)).gradients(batch, noise[:2])
    for name, value in expected.items():
        np.testing.assert_allclose(gradients[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
