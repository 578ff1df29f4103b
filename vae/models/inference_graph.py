"""The inference graph: histories to the top-k items, without those that a user has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from vae.models.chunking import ChunkResult, map_chunks, users_per_chunk
from vae.models.sparse_input import SparseBatch, placeholders
from vae.models.vae import ITEM_MULTIPLE, VAE

_GROUP = ITEM_MULTIPLE


class InferenceGraph(NamedTuple):
    """Inputs and outputs of the inference graph.

    Attributes:
        histories: placeholders for the users' items.
        seen: placeholders for the items to mask out; ``histories`` itself unless they are separate.
        items: (B, K) int32 item indices, best first, -1 where nothing is left to recommend.
        scores: (B, K) float32 logits, -inf where the item is -1.
        catalogue: number of items before padding.
    """

    histories: SparseBatch
    seen: SparseBatch
    items: tf.Tensor
    scores: tf.Tensor
    catalogue: int


def build_inference_graph(
    vae: VAE, k: int, max_users: int, separate_seen: bool = False, parallel_chunks: int = 1
) -> InferenceGraph:
    """Add the inference graph of a model, with placeholders, to the current graph.

    Args:
        vae: the model.
        k: K, at most the number of items.
        max_users: maximum B.
        separate_seen: whether the items to mask out are fed separately from the histories.
        parallel_chunks: chunks of users that the session may process at the same time.
    """
    users = placeholders()
    seen = placeholders() if separate_seen else users
    items, scores = rank(vae, users, seen, k, max_users, parallel_chunks)
    return InferenceGraph(users, seen, items, scores, vae.architecture.items)


def rank(
    vae: VAE,
    users: SparseBatch,
    seen: SparseBatch,
    k: int,
    max_users: int | None,
    parallel_chunks: int = 1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rank the items for each user by the mean of the latent distribution, without dropout.

    Args:
        vae: the model.
        users: histories of B users.
        seen: items to mask out, of the same users.
        k: K, at most the number of items.
        max_users: maximum B; None for a single chunk.
        parallel_chunks: as for ``build_inference_graph``.

    Returns:
        ``items`` and ``scores`` as in ``InferenceGraph``.
    """
    mean, _ = vae.encode(users)
    hidden = vae.decode_hidden(mean)
    kernel, bias = vae.item_layer

    def body(part: SparseBatch, per_user: Sequence[tf.Tensor]) -> ChunkResult:
        products = tf.matmul(tf.cast(per_user[0], kernel.dtype), kernel)
        logits = tf.nn.bias_add(tf.cast(products, tf.float32), bias)
        mask = tf.fill([tf.size(part.items)], float("-inf"))
        scores, items = top_k(part.add_to(logits, mask), k)
        none_left = tf.equal(scores, float("-inf"))
        return ChunkResult([], [tf.where(none_left, -tf.ones_like(items), items), scores])

    chunk_users = users_per_chunk(vae.architecture.padded_items) // parallel_chunks
    _, (items, scores) = map_chunks(body, seen, [hidden], max_users, chunk_users, parallel_chunks)
    return items, scores


def top_k(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the k largest values of each row and their indices; faster than ``tf.math.top_k``.

    The items are divided into groups of eight. The k largest values lie in the k groups with the
    largest maxima, so only those groups are sorted.

    Args:
        scores: (B, I) float32, I a multiple of eight.
        k: K, at most I.

    Returns:
        (B, K) float32 values, largest first, and (B, K) int32 item indices.
    """
    groups = scores.shape[1] // _GROUP
    if k > groups // 2:
        everything = tf.math.top_k(scores, k)
        return everything.values, everything.indices
    # Item i is in group i % groups, so that the maxima are taken over contiguous rows.
    grouped = tf.reshape(scores, [-1, _GROUP, groups])
    _, best_groups = tf.math.top_k(tf.reduce_max(grouped, axis=1), k, sorted=False)
    candidates = (
        best_groups[:, tf.newaxis, :] + groups * tf.range(_GROUP)[tf.newaxis, :, tf.newaxis]
    )
    candidates = tf.reshape(candidates, [-1, _GROUP * k])
    values, positions = tf.math.top_k(tf.gather(scores, candidates, batch_dims=1), k)
    return values, tf.gather(candidates, positions, batch_dims=1)
