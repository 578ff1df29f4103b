"""From histories to the best items that a user has not seen: the inference graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from vae.models import histories
from vae.models.histories import Histories
from vae.models.slices import SliceResult, map_slices
from vae.models.vae import VAE


class Ranking(NamedTuple):
    """The inference graph's input and output.

    Attributes:
        histories: placeholders for the users' items.
        items: (B, K) int32 columns, best first, -1 where nothing is left to recommend.
        scores: (B, K) float32 logits, -inf beside a -1.
    """

    histories: Histories
    items: tf.Tensor
    scores: tf.Tensor


def build_ranking(vae: VAE, k: int, max_users: int) -> Ranking:
    """Adds the inference graph of the model: mean instead of a sample, no dropout.

    Args:
        vae: the model.
        k: recommendations a user, at most the items of the catalogue.
        max_users: users in a batch at most.
    """
    users = histories.placeholders()
    mean, _ = vae.encode(users)
    hidden = vae.decode_hidden(mean)
    kernel, bias = vae.item_layer

    def body(part: Histories, per_user: Sequence[tf.Tensor]) -> SliceResult:
        logits = tf.nn.bias_add(tf.matmul(per_user[0], kernel), bias)
        seen = tf.fill([tf.size(part.items)], float("-inf"))
        scores, items = tf.math.top_k(part.add_to(logits, seen), k)
        none_left = tf.equal(scores, float("-inf"))
        return SliceResult([], [tf.where(none_left, -tf.ones_like(items), items), scores])

    _, (items, scores) = map_slices(body, users, [hidden], max_users)
    return Ranking(users, items, scores)
