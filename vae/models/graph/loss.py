"""The multinomial likelihood of training (Liang et al. 2018, section 2).

The last layer and its likelihood are one function with a custom gradient: their (B, I) logits are
by far the largest tensor of the model, and each pass over them takes time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from vae.models.graph.chunking import ChunkResult, map_chunks, users_per_chunk
from vae.models.graph.item_shard import ItemShard
from vae.models.graph.sparse_input import SparseBatch


def multinomial_nll(
    hidden: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    histories: SparseBatch,
    weight: tf.Tensor,
    max_users: int,
    dtype: tf.DType = tf.float32,
    loss_scale: tf.Tensor | None = None,
    shard: ItemShard | None = None,
) -> tf.Tensor:
    """Return the negative log-likelihood of the users' items (section 2.1, equation 2).

    This is the weighted sum, over users and each user's items, of the negative
    log_softmax(hidden @ kernel + bias). The gradient is computed together with the value, chunk by
    chunk of users, so that the logits of only one chunk exist at a time.

    Args:
        hidden: (B, H) float32, the decoder's hidden layer.
        kernel: (H, I) float32.
        bias: (I,) float32; -inf masks an item.
        histories: the users' items, each once.
        weight: scalar float32 factor, usually 1 / number of users of the global batch.
        max_users: maximum B.
        dtype: of the matmuls and the softmax; sums over users are float32.
        loss_scale: scalar float32, a power of two that the incoming gradient is multiplied by. The
            factor is applied before the matmuls instead, where it keeps float16 from underflowing.
        shard: of the items, if kernel, bias and histories are those of a worker's own items: the
            value and the gradient by ``hidden`` are nevertheless those of all items.

    Returns:
        Scalar float32, in nats times ``weight``; a probability below the smallest normal float32
        counts as that one, 87.3 nats. Differentiable once, by ``hidden``, ``kernel`` and ``bias``.
    """
    shard = shard or ItemShard(int(kernel.shape[1]))
    chunk_users = users_per_chunk(shard.max_items)

    @tf.custom_gradient  # type: ignore[misc]
    def nll(hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, object]:
        kernel, bias = (tf.cast(tensor, dtype) for tensor in (kernel, bias))
        units = int(kernel.shape[0])
        # The bias is one more row of the matmuls: oneDNN's bfloat16 product that adds a bias takes
        # four times as long as one that does not, and the bias's gradient is then cheaper than a
        # sum over users. Zeros pad it to a multiple of eight: with 601 rows bfloat16 takes a third
        # longer than with 608.
        rows = 8 * math.ceil((units + 1) / 8)
        padding = [[0, rows - units - 1], [0, 0]]
        affine = tf.concat([kernel, tf.pad(bias[tf.newaxis], padding)], axis=0)

        def body(part: SparseBatch, per_user: Sequence[tf.Tensor]) -> ChunkResult:
            """Sum up the value and the (A, I) gradient by ``affine``, list that by ``hidden``.

            With p the softmax of the logits and a user's n items, the logits' gradient is n p - 1
            at the items and n p elsewhere: n times (p - x), with x = 1 / n at the items. The factor
            n is applied to the (B, H) side of the matmuls, which saves a pass over (B, I).
            """
            counts = tf.cast(part.lengths, tf.float32)
            ones = tf.pad(tf.ones_like(counts)[:, tf.newaxis], padding[::-1])
            inputs = tf.concat([per_user[0], ones], axis=1)
            probabilities = shard.softmax(tf.matmul(tf.cast(inputs, dtype), affine))
            likelihoods = tf.cast(part.pick(probabilities), tf.float32)
            value = -tf.reduce_sum(tf.log(tf.maximum(likelihoods, np.finfo(np.float32).tiny)))
            # Only then does no other operation read the probabilities, which the sum overwrites.
            with tf.control_dependencies([value]):
                targets = tf.cast(part.spread(-1 / counts), dtype)
                difference = part.overwrite(probabilities, targets, min(max_users, chunk_users))
            if loss_scale is not None:
                difference *= loss_scale
            factor = (weight * counts)[:, tf.newaxis]
            by_hidden = tf.cast(tf.matmul(difference, kernel, transpose_b=True), tf.float32)
            left = tf.cast(factor * inputs, dtype)
            by_affine = tf.cast(tf.matmul(left, difference, transpose_a=True), tf.float32)
            by_affine.set_shape(affine.shape)
            return ChunkResult([weight * value, by_affine], [factor * by_hidden])

        (value, by_affine), (by_hidden,) = map_chunks(
            body, histories, [hidden], max_users, chunk_users
        )
        value, by_hidden = shard.sum(value), shard.sum(by_hidden)

        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            by_kernel, by_bias = by_affine[:units], by_affine[units]
            factor = upstream if loss_scale is None else upstream / loss_scale
            return [factor * by_hidden, factor * by_kernel, factor * by_bias]

        return value, gradient

    return nll(hidden, kernel, bias)
