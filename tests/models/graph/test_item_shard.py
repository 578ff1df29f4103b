"""Shards of the items begin, score and rank as the whole."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from models.reference import RECVAE

from vae.config import Architecture
from vae.models.graph.item_shard import ItemShard, item_axis
from vae.models.graph.vae import VAE
from vae.utils.distributed import Workers


class Rank(Workers):
    """A rank that is not connected; what all ranks gather is ``gathered``."""

    def __init__(self, rank, size, gathered=()):
        self.rank, self.size, self._gathered = rank, size, iter(gathered)

    def allgather_tensor(self, _):
        return tf.constant(next(self._gathered))

    def allreduce_tensor(self, tensor):
        return tensor + next(self._gathered)


def initial(architecture, workers):
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(architecture, 5, shard=ItemShard(architecture.padded_items, workers))
        session.run(tf.global_variables_initializer())
        return session.run({variable.op.name: variable for variable in vae.variables})


@pytest.mark.parametrize("layers", [(), RECVAE])
@settings(max_examples=4)
@given(groups=st.integers(3, 9), hidden=st.integers(1, 9), size=st.integers(2, 3))
def test_the_initial_weights_of_the_shards_are_those_of_the_whole(layers, groups, hidden, size):
    architecture = Architecture(8 * groups - 3, hidden, 3, "tanh", *layers)
    whole, *parts = (
        initial(architecture, workers)
        for workers in (Workers(), *(Rank(rank, size) for rank in range(size)))
    )
    for name, values in whole.items():
        axis = item_axis(name)
        if axis is None:
            continue
        together = np.concatenate([part[name] for part in parts], axis)
        np.testing.assert_array_equal(together, values, name)


def test_the_best_items_of_the_shards_are_the_best_of_all():
    # Three shards of 8, 8 and 16 items; a user who has seen all items of the last but one.
    items = [[[0, 1, -1, -1]], [[8, -1, -1, -1]], [[31, 16, 17, 18]]]
    scores = [[[5, 1, -np.inf, -np.inf]], [[3, *[-np.inf] * 3]], [[4, 2, 0, -1]]]
    gathered = np.int32(items), np.float32(scores)
    shard = ItemShard(32, Rank(1, 3, gathered))
    assert (shard.range.start, shard.range.stop, shard.max_items) == (8, 16, 16)
    with tf.Graph().as_default(), tf.Session() as session:
        best = shard.best(tf.constant([[0, -1, -1]]), tf.constant([[3.0, -np.inf, -np.inf]]), 4)
        found = session.run(best)
    np.testing.assert_array_equal(found[0], [[0, 31, 8, 16]])
    np.testing.assert_array_equal(found[1], [[5, 4, 3, 2]])


@pytest.mark.parametrize("own", [1.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("others", [0.0, np.nan])
def test_an_overflow_in_any_range_is_one_on_all_workers(own, others):
    """Sums over the ranges: those of the others have no overflow, or have one."""
    with tf.Graph().as_default(), tf.Session() as session:
        shard = ItemShard(16, Rank(0, 2, [others]))
        shared, items = (
            tf.get_variable(name, [8, 3], initializer=tf.zeros_initializer(), use_resource=True)
            for name in ("decoder/hidden/kernel", "encoder/hidden/kernel")
        )
        one, given = tf.ones([8, 3]), tf.placeholder(tf.float32, [8, 3])
        (first, _), (second, _) = shard.share_overflow([(2 * one, shared), (given, items)])
        fed = np.ones([8, 3], np.float32)
        fed[3, 1] = own
        found, kept = session.run([first, second], {given: fed})
    np.testing.assert_array_equal(kept, fed)
    expected = 2 if np.isfinite(own) and others == 0 else np.nan
    np.testing.assert_array_equal(found, np.full([8, 3], expected))
