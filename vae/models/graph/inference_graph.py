"""The inference graph: histories to the top-k items, without those that a user has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import ITEM_MULTIPLE
from vae.models.graph.chunking import ChunkResult, map_chunks, users_per_chunk
from vae.models.graph.session import uncompiled
from vae.models.graph.sparse_input import SparseBatch, placeholders
from vae.models.graph.vae import VAE

_GROUP = ITEM_MULTIPLE


class InferenceGraph(NamedTuple):
    """Inputs and outputs of the inference graph.

    Attributes:
        histories: placeholders for the users' items.
        seen: placeholders for the items to mask out; ``histories`` itself unless they are separate.
        items: (B, K) int32 item indices, best first, -1 where nothing is left to recommend.
        scores: (B, K) float32 logits, or mixed scores of a blend; -inf where the item is -1.
        catalogue: number of items before padding.
        allowed: placeholders for the only items to rank; None to rank all.
        scored: placeholder for (B, K) int32 item indices; None without ``log_probabilities``.
        log_probabilities: (B, K) float32 of ``scored`` among all items in nats, those seen
            included; None unless they are asked for.
    """

    histories: SparseBatch
    seen: SparseBatch
    items: tf.Tensor
    scores: tf.Tensor
    catalogue: int
    allowed: SparseBatch | None = None
    scored: tf.Tensor | None = None
    log_probabilities: tf.Tensor | None = None


def build_inference_graph(
    vae: VAE,
    k: int,
    max_users: int,
    separate_seen: bool = False,
    parallel_chunks: int = 1,
    excluded: NDArray[np.bool_] | None = None,
    separate_allowed: bool = False,
    scores_items: bool = False,
) -> InferenceGraph:
    """Add the inference graph of a model, with placeholders, to the current graph.

    Args:
        vae: the model.
        k: K, at most the number of items.
        max_users: maximum B.
        separate_seen: whether the items to mask out are fed separately from the histories.
        parallel_chunks: chunks of users that the session may process at the same time.
        excluded: as for ``rank``.
        separate_allowed: whether the only items to rank are fed for each user.
        scores_items: whether to compute log-probabilities of given items too.
    """
    users = placeholders()
    seen = placeholders() if separate_seen else users
    allowed = placeholders() if separate_allowed else None
    items, scores = rank(vae, users, seen, k, max_users, parallel_chunks, excluded, allowed)
    graph = InferenceGraph(users, seen, items, scores, vae.architecture.items, allowed)
    if not scores_items:
        return graph
    scored = tf.placeholder(tf.int32, [None, k], "scored")
    log_probabilities = score(vae, users, scored, max_users, parallel_chunks)
    return graph._replace(scored=scored, log_probabilities=log_probabilities)


def rank(
    vae: VAE,
    users: SparseBatch,
    seen: SparseBatch,
    k: int,
    max_users: int | None,
    parallel_chunks: int = 1,
    excluded: NDArray[np.bool_] | None = None,
    allowed: SparseBatch | None = None,
    may_be_ranked: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rank the items for each user by the mean of the latent distribution, without dropout.

    Args:
        vae: the model.
        users: histories of B users.
        seen: items to mask out, of the same users.
        k: K, at most the number of items.
        max_users: maximum B; None for a single chunk.
        parallel_chunks: as for ``build_inference_graph``.
        excluded: bool for each item before padding, whether nobody gets it; None if there are none.
        allowed: the only items to rank, of the same users; None to rank all.
        may_be_ranked: the same as a (B or 1, I) bool mask, for a single chunk.

    Returns:
        ``items`` and ``scores`` as in ``InferenceGraph``.
    """
    mean, _ = vae.encode(users)
    hidden = vae.decode_hidden(mean)
    kernel, bias = vae.item_layer
    denied = None if excluded is None else _mask(excluded, vae.architecture.padded_items)
    if denied is not None and vae.blend is None:  # cheapest; but a blend needs the true logits
        bias += denied
    per_user = [hidden]
    if allowed is not None:
        per_user += [tf.cumsum(allowed.counts), allowed.counts]
    if vae.blend is not None:
        per_user.append(vae.blend.linear_scores(users))

    def body(part: SparseBatch, per_user: Sequence[tf.Tensor]) -> ChunkResult:
        logits = item_logits(per_user[0], kernel, bias)
        if vae.blend is not None:
            logits = vae.blend.mix(logits, per_user[-1])
            logits = logits if denied is None else logits + denied
        if allowed is not None:
            logits = only(allowed, per_user[1], per_user[2], logits)
        if may_be_ranked is not None:
            logits = tf.where_v2(may_be_ranked, logits, float("-inf"))
        mask = tf.fill([tf.size(part.items)], float("-inf"))
        return ChunkResult([], without_masked(*top_k(part.add_to(logits, mask), k)))

    chunk_users = users_per_chunk(vae.architecture.padded_items) // parallel_chunks
    _, (items, scores) = map_chunks(body, seen, per_user, max_users, chunk_users, parallel_chunks)
    return items, scores


def score(
    vae: VAE, users: SparseBatch, items: tf.Tensor, max_users: int, parallel_chunks: int
) -> tf.Tensor:
    """Return the (B, K) float32 log-probabilities of items, as the likelihood of training has them.

    Args:
        vae: the model.
        users: histories of B users.
        items: (B, K) int32 item indices.
        max_users: as for ``rank``.
        parallel_chunks: the same.
    """
    mean, _ = vae.encode(users)
    kernel, bias = vae.item_layer

    def body(part: SparseBatch, per_user: Sequence[tf.Tensor]) -> ChunkResult:
        logits = item_logits(per_user[0], kernel, bias)
        normalizer = tf.reduce_logsumexp(logits, axis=1, keepdims=True)
        return ChunkResult([], [tf.gather(logits, per_user[1], batch_dims=1) - normalizer])

    per_user = [vae.decode_hidden(mean), items]
    chunk_users = users_per_chunk(vae.architecture.padded_items) // parallel_chunks
    _, (scores,) = map_chunks(body, users, per_user, max_users, chunk_users, parallel_chunks)
    return scores


def item_logits(hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Return (B, I) float32 logits.

    Args:
        hidden: (B, H) float32 hidden layer of the decoder.
        kernel: (H, I) of ``VAE.item_layer``.
        bias: (I,) float32.
    """
    products = tf.matmul(tf.cast(hidden, kernel.dtype), kernel)
    return tf.nn.bias_add(tf.cast(products, tf.float32), bias)


def without_masked(scores: tf.Tensor, items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return ``items`` and ``scores`` as in ``InferenceGraph``.

    Args:
        scores: (B, K) float32, -inf for a masked item.
        items: (B, K) int32 item indices.
    """
    none_left = tf.equal(scores, float("-inf"))
    return tf.where(none_left, -tf.ones_like(items), items), scores


def only(allowed: SparseBatch, ends: tf.Tensor, counts: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the logits of a chunk of users, -inf at the items that they are not allowed.

    Args:
        allowed: items of all users of the batch.
        ends: (B,) int32 position after the last of each user's items.
        counts: (B,) int32 number of each user's items.
        logits: (B, I) float32.
    """
    with uncompiled():
        part = SparseBatch.of(allowed.items[ends[0] - counts[0] : ends[-1]], counts)
        shape = tf.shape(logits, out_type=tf.int64)
        ones = tf.ones_like(part.items, tf.float32)
        is_allowed = tf.scatter_nd(part.coordinates(), ones, shape) > 0
    return tf.where_v2(is_allowed, logits, float("-inf"))


def _mask(excluded: NDArray[np.bool_], padded_items: int) -> NDArray[np.float32]:
    """Return (I,) float32, -inf at excluded items and 0 at the others and at padded ones."""
    mask = np.zeros(padded_items, np.float32)
    mask[: len(excluded)][excluded] = -np.inf
    return mask


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
