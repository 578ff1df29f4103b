"""From histories to the best items that a user has not seen: the inference graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from vae.models.chunking import ChunkResult, map_chunks, users_per_chunk
from vae.models.sparse_input import SparseBatch, placeholders
from vae.models.vae import ITEM_MULTIPLE, VAE

_GROUP = ITEM_MULTIPLE


class InferenceGraph(NamedTuple):
    """The inference graph's input and output.

    Attributes:
        histories: placeholders for the users' items.
        seen: placeholders for the items not to recommend; ``histories`` itself unless they differ.
        items: (B, K) int32 columns, best first, -1 where nothing is left to recommend.
        scores: (B, K) float32 logits, -inf beside a -1.
        catalogue: items there are to choose from.
    """

    histories: SparseBatch
    seen: SparseBatch
    items: tf.Tensor
    scores: tf.Tensor
    catalogue: int


def build_inference_graph(
    vae: VAE, k: int, max_users: int, seen_apart: bool = False, chunks_at_once: int = 1
) -> InferenceGraph:
    """Adds the inference graph of the model, with placeholders for its input.

    Args:
        vae: the model.
        k: recommendations a user, at most the items of the catalogue.
        max_users: users in a batch at most.
        seen_apart: whether what not to recommend is fed by itself.
        chunks_at_once: slices of users that the session works at side by side.
    """
    users = placeholders()
    seen = placeholders() if seen_apart else users
    items, scores = rank(vae, users, seen, k, max_users, chunks_at_once)
    return InferenceGraph(users, seen, items, scores, vae.architecture.items)


def rank(
    vae: VAE,
    users: SparseBatch,
    seen: SparseBatch,
    k: int,
    max_users: int | None,
    chunks_at_once: int = 1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best items for each user: mean instead of a sample, no dropout.

    Args:
        vae: the model.
        users: histories of B users.
        seen: what not to recommend to them.
        k: recommendations a user, at most the items of the catalogue.
        max_users: the largest B there will be, None to rank them all at once.
        chunks_at_once: as for ``build_inference_graph``.

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

    chunk_users = users_per_chunk(vae.architecture.padded_items) // chunks_at_once
    _, (items, scores) = map_chunks(body, seen, [hidden], max_users, chunk_users, chunks_at_once)
    return items, scores


def top_k(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The k largest of each row and their columns, as ``tf.math.top_k`` but faster.

    The columns fall into groups of eight. The k largest lie in the k groups with the largest
    maxima, and only those need to be sorted.

    Args:
        scores: (B, I) float32, I a multiple of eight.
        k: at most I.
    """
    columns = scores.shape[1]
    groups = columns // _GROUP
    if k > groups // 2:
        everything = tf.math.top_k(scores, k)
        return everything.values, everything.indices
    # Column c is in group c % groups, so that the maxima are taken along whole rows.
    grouped = tf.reshape(scores, [-1, _GROUP, groups])
    _, best_groups = tf.math.top_k(tf.reduce_max(grouped, axis=1), k, sorted=False)
    candidates = (
        best_groups[:, tf.newaxis, :] + groups * tf.range(_GROUP)[tf.newaxis, :, tf.newaxis]
    )
    candidates = tf.reshape(candidates, [-1, _GROUP * k])
    best, places = tf.math.top_k(tf.gather(scores, candidates, batch_dims=1), k)
    return best, tf.gather(candidates, places, batch_dims=1)
