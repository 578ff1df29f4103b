"""The inference graph: histories to the top-k items, without those that a user has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from vae.config import ITEM_MULTIPLE
from vae.models.graph.chunking import ChunkResult, map_chunks, users_per_chunk
from vae.models.graph.sparse_input import SparseBatch, placeholders
from vae.models.graph.vae import VAE

ITEM_WEIGHTS, ITEM_INDICES = "blend/item_weights", "blend/item_indices"
MODEL_WEIGHT = "blend/model_weight"
"""Names of the variables of ``Blend``."""

_CHUNK_WEIGHTS = 1 << 16
"""Weights that a chunk of users with one item each would sum up; it keeps memory low."""

_USUAL_K = 100
"""How many items are usually asked for."""


class InferenceGraph(NamedTuple):
    """Inputs and outputs of the inference graph.

    Attributes:
        histories: placeholders for the users' items.
        listed: placeholders for the items to mask out, or for the only ones to rank; ``histories``
            itself unless there are filters.
        items: (B, K) int32 item indices, best first, -1 where nothing is left to recommend.
        scores: (B, K) float32 logits, or mixed scores of a blend; -inf where the item is -1.
        latent_mean: (B, Z) float32, the mean of the latent distribution.
        k: placeholder for K, scalar int32; None if K is fixed.
        item_mask: placeholder for the (padded I,) float32 mask of items, 0 or, for an item that
            nobody gets, -inf; None unless there are filters.
        given_items: placeholder for (B, any number) int32 item indices; None without
            ``log_probabilities``.
        log_probabilities: their float32 of ``given_items`` among all items in nats, as the
            likelihood of training has them; None unless they are asked for.
    """

    histories: SparseBatch
    listed: SparseBatch
    items: tf.Tensor
    scores: tf.Tensor
    latent_mean: tf.Tensor
    k: tf.Tensor | None = None
    item_mask: tf.Tensor | None = None
    given_items: tf.Tensor | None = None
    log_probabilities: tf.Tensor | None = None


class Blend:
    """Variables of a linear model whose scores are mixed with the decoder's (``--blend``).

    The linear scores are the product of the histories and (I, I) weights, of which the W largest of
    each row are kept, if not all.

    Args:
        items: I before padding.
        weights_per_item: W, at most I.
        max_users: maximum B of batches; more than a chunk are summed up in a loop, if W < I.

    Attributes:
        item_weights: (I, W) float32.
        item_indices: (I, W) int32, their columns; None if W is I.
        model_weight: scalar float32, weight of the decoder's logits; that of the linear scores is 1
            minus it.
    """

    def __init__(self, items: int, weights_per_item: int, max_users: int) -> None:
        self._items, self._max_users = items, max_users
        shape, zeros = [items, weights_per_item], tf.zeros_initializer()
        with tf.variable_scope("", use_resource=True):
            self.item_weights = tf.get_variable(ITEM_WEIGHTS, shape, initializer=zeros)
            self.item_indices = None
            if weights_per_item < items:
                self.item_indices = tf.get_variable(ITEM_INDICES, shape, tf.int32, zeros)
            self.model_weight = tf.get_variable(MODEL_WEIGHT, [], initializer=zeros)

    def linear_scores(self, histories: SparseBatch) -> tf.Tensor:
        """Return the (B, I) float32 scores of the linear model."""
        weights, indices, items = self.item_weights, self.item_indices, self._items
        if indices is not None:

            def scores(users: SparseBatch, _: Sequence[tf.Tensor]) -> ChunkResult:
                return ChunkResult([], [users.sum_sparse(weights, indices, items)])

            chunk_users = max(1, _CHUNK_WEIGHTS // int(weights.shape[1]))
            return map_chunks(scores, histories, [], self._max_users, chunk_users).rows[0]
        # Without the factor 1, TensorFlow's rewrite of the graph rounds the mixture differently.
        ones = tf.ones_like(histories.counts, tf.float32)[:, tf.newaxis]
        return ones * histories.sum(weights)

    def mix(self, logits: tf.Tensor, linear_scores: tf.Tensor) -> tf.Tensor:
        """Return the weighted sum of both scores, each standardised over a user's I items.

        Args:
            logits: (B, padded I) float32, finite but for the padded items.
            linear_scores: (B, I) float32.

        Returns:
            (B, padded I) float32 scores, -inf for the padded items.
        """
        items, padded_items = self._items, int(logits.shape[1])
        mixed = self.model_weight * _standardise(logits[:, :items])
        mixed += (1 - self.model_weight) * _standardise(linear_scores)
        padding = [[0, 0], [0, padded_items - items]]
        return tf.pad(mixed, padding, constant_values=float("-inf"))


class ItemScores:
    """Scores of all items by the mean of the latent distribution, without dropout.

    Args:
        blend: what the model's logits are mixed with; None for the logits themselves.
        item_mask: as in ``InferenceGraph``; None to leave no item out.
    """

    def __init__(
        self, vae: VAE, blend: Blend | None = None, item_mask: tf.Tensor | None = None
    ) -> None:
        self._vae, self._blend, self._mask = vae, blend, item_mask
        self._kernel, self._bias = vae.item_layer
        # The logits that a blend standardises are those of all items.
        if item_mask is not None and blend is None:
            self._bias += item_mask  # costs nothing

    def inputs(self, histories: SparseBatch, latent_mean: tf.Tensor) -> list[tf.Tensor]:
        """Return what the scores are computed from, tensors of B rows."""
        hidden = self._vae.decode_hidden(latent_mean)
        return [hidden, *([self._blend.linear_scores(histories)] if self._blend else [])]

    def __call__(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the (B, I) float32 scores from ``inputs``, -inf for excluded and padded items."""
        products = tf.matmul(tf.cast(inputs[0], self._kernel.dtype), self._kernel)
        logits = tf.nn.bias_add(tf.cast(products, tf.float32), self._bias)
        if self._blend is None:
            return logits
        scores = self._blend.mix(logits, inputs[1])
        return scores if self._mask is None else scores + self._mask


def build_inference_graph(
    vae: VAE,
    k: int | None,
    max_users: int,
    blend: Blend | None = None,
    filters: bool = False,
    only_listed: bool = False,
    log_probabilities: bool = False,
    parallel_chunks: int = 1,
) -> InferenceGraph:
    """Add the inference graph of a model, with placeholders, to the current graph.

    Args:
        vae: the model; if it has a shard of the items, K must be fixed, without blend or filters.
        k: K, at most the number of items; None to feed it.
        max_users: maximum B.
        blend: as for ``ItemScores``.
        filters: whether the items to mask out are fed separately from the histories, and a mask of
            items with them.
        only_listed: whether these are the only items to rank, instead of those to mask out.
        log_probabilities: whether to compute log-probabilities of given items too.
        parallel_chunks: chunks of users that the session may process at the same time.
    """
    histories = placeholders()
    listed = placeholders() if filters else histories
    fed_k = tf.placeholder(tf.int32, [], "k") if k is None else None
    wide = [vae.architecture.padded_items]
    item_mask = tf.placeholder(tf.float32, wide, "item_mask") if filters else None
    chunk_users = users_per_chunk(vae.architecture.padded_items) // parallel_chunks
    chunks = (max_users, chunk_users, parallel_chunks)

    rankable = ItemScores(vae, blend, item_mask)
    latent_mean, _ = vae.encode(histories)
    shard = vae.shard

    def rank(part: SparseBatch, inputs: Sequence[tf.Tensor]) -> ChunkResult:
        scores = rankable(inputs)
        if not shard.is_divided:
            return ChunkResult([], best_items(scores, part, k or fed_k, only_listed))
        assert k is not None
        own_k = min(k, int(scores.shape[1]))
        return ChunkResult([], shard.best(*best_items(scores, part, own_k, only_listed), k))

    per_user = rankable.inputs(histories, latent_mean)
    _, (items, scores) = map_chunks(rank, shard.own(listed), per_user, *chunks)
    graph = InferenceGraph(histories, listed, items, scores, latent_mean, fed_k, item_mask)
    if not log_probabilities:
        return graph

    all_items = ItemScores(vae)
    given_items = tf.placeholder(tf.int32, [None, None], "given_items")

    def log_softmax(_: SparseBatch, per_user: Sequence[tf.Tensor]) -> ChunkResult:
        *inputs, given = per_user
        logits = all_items(inputs)
        normalizer = tf.reduce_logsumexp(logits, axis=1, keepdims=True)
        return ChunkResult([], [tf.gather(logits, given, batch_dims=1) - normalizer])

    per_user = [*all_items.inputs(histories, latent_mean), given_items]
    _, (values,) = map_chunks(log_softmax, histories, per_user, *chunks)
    return graph._replace(given_items=given_items, log_probabilities=values)


def best_items(
    scores: tf.Tensor, listed: SparseBatch, k: int | tf.Tensor, only_listed: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return ``items`` and ``scores`` as in ``InferenceGraph``, without each user's listed items.

    With ``only_listed`` these are the only items to rank instead. The (B, I) float32 ``scores`` are
    -inf for an item that nobody gets.
    """
    if only_listed:
        scores = listed.only(scores)
    else:
        scores = listed.add_to(scores, tf.fill([tf.size(listed.items)], float("-inf")))
    return without_masked(*top_k(scores, k))


def without_masked(scores: tf.Tensor, items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return (B, K) item indices, -1 where the score is -inf, and the (B, K) float32 scores."""
    none_left = tf.equal(scores, float("-inf"))
    return tf.where(none_left, -tf.ones_like(items), items), scores


def top_k(scores: tf.Tensor, k: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the k largest values of each row and their indices; faster than ``tf.math.top_k``.

    The items are divided into groups of eight. The k largest values lie in the k groups with the
    largest maxima, so only those groups are sorted.

    Args:
        scores: (B, I) float32, I a multiple of eight.
        k: K, at most I; an integer, or a scalar int32.

    Returns:
        (B, K) float32 values, largest first, and (B, K) int32 item indices.
    """
    groups = scores.shape[1] // ITEM_MULTIPLE
    is_fixed = isinstance(k, int)
    if (k if is_fixed else _USUAL_K) > groups // 2:  # nothing to save
        everything = tf.math.top_k(scores, k)
        return everything.values, everything.indices
    # Item i is in group i % groups, so that the maxima are taken over contiguous rows.
    grouped = tf.reshape(scores, [-1, ITEM_MULTIPLE, groups])
    chosen = k if is_fixed else tf.minimum(k, groups)
    _, best_groups = tf.math.top_k(tf.reduce_max(grouped, axis=1), chosen, sorted=False)
    # The items of group g are g, g + groups, g + 2 groups, ...: 8 candidates for each.
    offsets = groups * tf.range(ITEM_MULTIPLE)[tf.newaxis, :, tf.newaxis]
    candidates = tf.reshape(best_groups[:, tf.newaxis, :] + offsets, [-1, ITEM_MULTIPLE * chosen])
    values, positions = tf.math.top_k(tf.gather(scores, candidates, batch_dims=1), k)
    # From positions among the candidates back to item indices.
    return values, tf.gather(candidates, positions, batch_dims=1)


def _standardise(scores: tf.Tensor) -> tf.Tensor:
    """Return (B, I) scores with mean 0 and variance 1 in each row; zeros where all are equal."""
    mean, variance = tf.nn.moments(scores, axes=[1], keepdims=True)
    return (scores - mean) * tf.math.rsqrt(tf.maximum(variance, np.finfo(np.float32).tiny))
