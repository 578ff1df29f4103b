"""The items whose weights a worker holds: all, or a shard of its own (``--parallel items``).

With shards, every worker sees all users of a batch, and all layers but the first and the last are
replicated: each worker computes them alike. Of the first layer it sums the kernel's rows of its own
items, and of the last it computes their logits. Only sums per user travel, so the gradient of a
large kernel stays with the worker that holds the kernel (Shoeybi et al. 2019, arXiv:1909.08053,
section 3, divide the layers of a transformer like that).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from vae.config import ITEM_MULTIPLE
from vae.models.graph.session import uncompiled
from vae.models.graph.sparse_input import SparseBatch
from vae.utils.distributed import Workers, shard

_ITEM_AXES = {"encoder/hidden/kernel": 0, "decoder/items/kernel": 1, "decoder/items/bias": 0}

Gradients = list[tuple[tf.Tensor, tf.Variable]]


def item_axis(name: str) -> int | None:
    """Return the axis of the items of a variable; None if it has none.

    Adam's slots, and a layer's copy in the prior, are named after the layer.
    """
    layer = name.removeprefix("prior/")
    return next((axis for start, axis in _ITEM_AXES.items() if layer.startswith(start)), None)


class ItemShard:
    """A worker's range of the padded items, a multiple of eight, and what adds up over the ranges.

    Args:
        padded_items: padded I, at least eight for each worker.
        workers: those that divide the items; by default each worker holds all of them.

    Attributes:
        is_divided: whether there are other ranges.
        range: this worker's range.
    """

    def __init__(self, padded_items: int, workers: Workers | None = None) -> None:
        self.padded_items, self.workers = padded_items, workers or Workers()
        self.is_divided = self.workers.size > 1
        self.range = self.range_of(self.workers.rank)

    def range_of(self, rank: int) -> slice:
        """Return the range of a rank; the ranges differ by eight items at most."""
        groups = shard(self.padded_items // ITEM_MULTIPLE, rank, self.workers.size)
        return slice(groups.start * ITEM_MULTIPLE, groups.stop * ITEM_MULTIPLE)

    def axis(self, name: str) -> int | None:
        """Return the axis in which a variable is divided; None if all ranks have it alike."""
        return item_axis(name) if self.is_divided else None

    @property
    def max_items(self) -> int:
        """Items of the largest range, that of the last rank."""
        return self.shape([0], 0, self.workers.size - 1)[0]

    def shape(self, shape: Sequence[int], axis: int, rank: int) -> list[int]:
        """Return the shape of a rank's part of a variable of this shape."""
        own = self.range_of(rank)
        return [*shape[:axis], own.stop - own.start, *shape[axis + 1 :]]

    def variable(
        self,
        name: str,
        shape: Sequence[int],
        dtype: tf.DType,
        initializer: Callable[..., tf.Tensor],
        trainable: bool,
    ) -> tf.Variable:
        """Add this worker's part of a variable, with the initial values of the whole one."""
        axis = self.axis(f"{tf.get_variable_scope().name}/{name}")
        whole = list(shape)
        if axis is not None:
            of_all, shape = initializer, self.shape(whole, axis, self.workers.rank)

            def initializer(_: object, dtype: tf.DType, **__: object) -> tf.Tensor:
                if len(whole) == 1:
                    return of_all(whole, dtype)[self.range]
                return self._part_of_glorot(whole, axis, of_all.seed)  # type: ignore[attr-defined]

        return tf.get_variable(name, shape, dtype, initializer, trainable=trainable)

    def _part_of_glorot(self, whole: list[int], axis: int, seed: int) -> tf.Tensor:
        """Return the part of the values of ``tf.glorot_uniform_initializer``, without the whole.

        Its generator, Philox, computes the values from their numbers, four at a time.
        """
        rows, columns = self.shape(whole, axis, self.workers.rank)
        start, runs = self.range.start, 1 if axis == 0 else rows
        places = [start * columns] if axis == 0 else start + whole[1] * np.arange(rows)
        of_graph, of_kernel = tf.random.get_seed(seed)

        def draw(place: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.StatelessRandomUniformV2(
                shape=[rows * columns // runs],
                key=tf.constant([of_graph], tf.uint64),
                counter=tf.cast(tf.stack([place // 4, of_kernel]), tf.uint64),
                alg=1,
            )

        uniform = tf.map_fn(draw, tf.constant(places, tf.int64), tf.float32)
        limit = math.sqrt(6 / sum(whole))
        return tf.reshape(uniform, [rows, columns]) * (2 * limit) - limit

    def own(self, histories: SparseBatch) -> SparseBatch:
        """Return the items of this worker's range, counted from its start."""
        return histories.within(self.range.start, self.range.stop) if self.is_divided else histories

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum over the ranges, whose gradient by each of its terms is that by itself.

        Every worker computes the same from the sum: the gradients of all of them are one gradient.
        """
        if not self.is_divided:
            return tensor

        @tf.custom_gradient  # type: ignore[misc]
        def total(tensor: tf.Tensor) -> tuple[tf.Tensor, object]:
            with uncompiled():
                return self.workers.allreduce_tensor(tensor), lambda upstream: upstream

        return total(tensor)

    def softmax(self, logits: tf.Tensor) -> tf.Tensor:
        """Return the probabilities of this range's items among all items, of (B, own I) logits."""
        if not self.is_divided:
            return tf.nn.softmax(logits)
        dtype, logits = logits.dtype, tf.cast(logits, tf.float32)  # bfloat16 would round the powers
        largest = tf.reduce_max(logits, axis=1, keepdims=True)
        powers = tf.exp(logits - largest)
        sums = tf.reduce_sum(powers, axis=1, keepdims=True)
        with uncompiled():
            ranges = self.workers.allgather_tensor(tf.concat([largest, sums], axis=1))
        scales = tf.exp(ranges[:, :, :1] - tf.reduce_max(ranges[:, :, :1], axis=0))
        total = tf.reduce_sum(scales * ranges[:, :, 1:], axis=0)
        return tf.cast(powers * (scales[self.workers.rank] / total), dtype)

    def best(self, items: tf.Tensor, scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best of all ranges' best items, with their scores.

        Args:
            items: (B, L) int32 items of this range, counted from its start, best first, or -1; L
                is K, or all items of the range if they are fewer.
            scores: (B, L) float32 of these items, -inf where the item is -1.
            k: K, at most the number of items.
        """
        if not self.is_divided:
            return items, scores
        items = tf.where(items < 0, items, items + self.range.start)
        padding = [[0, 0], [0, min(k, self.max_items) - int(scores.shape[1])]]
        items = tf.pad(items, padding, constant_values=-1)
        scores = tf.pad(scores, padding, constant_values=float("-inf"))
        with uncompiled():
            items, scores = (
                tf.concat(tf.unstack(self.workers.allgather_tensor(best), self.workers.size), 1)
                for best in (items, scores)
            )
        best_scores, places = tf.math.top_k(scores, k)
        return tf.gather(items, places, batch_dims=1), best_scores

    def share_overflow(self, gradients: Gradients) -> Gradients:
        """Return gradients that are not finite on all workers if those of any worker are not.

        A worker alone has the gradients of its items; all have to skip the same steps.
        """
        if not self.is_divided:
            return gradients
        own = [gradient for gradient, weight in gradients if self.axis(weight.op.name) is not None]
        nothing = self.sum(tf.add_n([0 * tf.reduce_sum(gradient) for gradient in own]))  # or NaN
        return [
            (gradient + nothing if self.axis(weight.op.name) is None else gradient, weight)
            for gradient, weight in gradients
        ]
