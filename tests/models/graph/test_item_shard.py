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
