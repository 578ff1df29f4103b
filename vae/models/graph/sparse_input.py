"""Sparse batches: the users' items as tensors, in the CSR format without values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from scipy.sparse import csr_matrix

from vae.models.graph.session import uncompiled


class SparseBatch(NamedTuple):
    """N items of B users, user by user.

    Attributes:
        items: (N,) int64 item indices.
        counts: (B,) int32 number of items of each user.
        rows: (N,) int64 row of each item's user, 0 to B - 1.
    """

    items: tf.Tensor
    counts: tf.Tensor
    rows: tf.Tensor

    @classmethod
    def of(cls, items: tf.Tensor, counts: tf.Tensor) -> SparseBatch:
        """Return a batch of (N,) int64 item indices and (B,) int32 items per user."""
        with uncompiled():
            users = tf.range(tf.size(counts, out_type=tf.int64))
            return cls(items, counts, tf.repeat(users, counts))

    @property
    def users(self) -> tf.Tensor:
        """B, scalar int32."""
        return tf.size(self.counts)

    def slice(self, first: tf.Tensor, last: tf.Tensor) -> SparseBatch:
        """Return the users of the rows ``first`` to ``last`` - 1 (scalar int32)."""
        with uncompiled():
            starts = tf.concat([[0], tf.cumsum(self.counts)], axis=0)
            return SparseBatch.of(self.items[starts[first] : starts[last]], self.counts[first:last])

    def keep(self, keep_mask: tf.Tensor) -> SparseBatch:
        """Return the items where the (N,) bool mask is true; ``counts`` are unchanged."""
        with uncompiled():
            return self._replace(
                items=tf.boolean_mask(self.items, keep_mask),
                rows=tf.boolean_mask(self.rows, keep_mask),
            )

    def coordinates(self) -> tf.Tensor:
        """Return the (N, 2) int64 row and item index of each item."""
        with uncompiled():
            return tf.stack([self.rows, self.items], axis=1)

    def spread(self, per_user: tf.Tensor) -> tf.Tensor:
        """Return the (N,) values of the items' users, of (B,) values."""
        with uncompiled():
            return tf.gather(per_user, self.rows)

    def pick(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return the (N,) values of a (B, I) matrix at the users' items."""
        with uncompiled():
            return tf.gather_nd(matrix, self.coordinates())

    def weighted_sum(self, weights: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Return the sum of the vectors of each user's items, times the user's weight.

        Args:
            weights: (B,) float32.
            vectors: (I, H) float32.

        Returns:
            (B, H) float32; zeros for a user without items.
        """
        return weights[:, tf.newaxis] * self.sum(vectors)

    def sum(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return the (B, H) sums of the (I, H) vectors of each user's items."""
        graph = tf.get_default_graph()
        with uncompiled(), graph.gradient_override_map({_SEGMENT_SUM: _SUM_BY_ITEM}):
            return tf.sparse.segment_sum(vectors, self.items, self.rows, num_segments=self.users)

    def add_to(self, matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Return a (B, I) matrix with (N,) ``values`` added at the users' items.

        On a CPU the sparse addition takes a quarter of the time of a scatter; GPUs have no kernel
        for it.
        """
        if tf.config.list_physical_devices("GPU"):
            return self.scatter_to(matrix, values)
        with uncompiled():
            shape = tf.shape(matrix, out_type=tf.int64)
            return tf.sparse.add(matrix, tf.SparseTensor(self.coordinates(), values, shape))

    def only(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return a (B, I) matrix with -inf but at the users' items."""
        with uncompiled():
            nothing = tf.fill(tf.shape(matrix), float("-inf"))
            return tf.tensor_scatter_nd_update(nothing, self.coordinates(), self.pick(matrix))

    def scatter_to(self, matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Do the same as ``add_to`` by an operation that every device has."""
        with uncompiled():
            return tf.tensor_scatter_nd_add(matrix, self.coordinates(), values)


_SEGMENT_SUM, _SUM_BY_ITEM = "SparseSegmentSumWithNumSegments", "SumByItem"


def _sum_by_item(sums: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
    """Return the (I, H) gradient by the vectors: the sum over the users of each item.

    TensorFlow's own, SparseSegmentSumGrad, is uninitialised memory where there are no items at all
    (seen in 2.18 and 2.21), and takes three times as long in 2.21.

    Args:
        sums: segment sum of (I, H) vectors over the N items of B users, user by user.
        gradient: (B, H) gradient by the sums.
    """
    vectors, items, rows, _ = sums.inputs
    with uncompiled():
        by_item = tf.argsort(items, stable=True)
        summed = tf.sparse.segment_sum(
            gradient,
            tf.gather(rows, by_item),
            tf.gather(items, by_item),
            num_segments=tf.shape(vectors)[0],
        )
    return summed, None, None, None


tf.RegisterGradient(_SUM_BY_ITEM)(_sum_by_item)


class PortableSparseBatch(SparseBatch):
    """A batch for exported graphs: GPUs, and converters to other formats, have all its operations.

    A server's batches are small, so the speed of these operations matters little.
    """

    def sum(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return the same without the name of a gradient, which no other program knows."""
        return tf.sparse.segment_sum(vectors, self.items, self.rows, num_segments=self.users)

    def add_to(self, matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Return the matrix with the values added, by ``scatter_to``."""
        return self.scatter_to(matrix, values)


def placeholders() -> SparseBatch:
    """Return placeholders, to be fed with :func:`feed`."""
    return SparseBatch.of(
        tf.placeholder(tf.int64, [None], "items"),
        tf.placeholder(tf.int32, [None], "counts"),
    )


def feed(histories: SparseBatch, matrix: csr_matrix) -> dict[tf.Tensor, Any]:
    """Return the feed of :func:`placeholders` for the rows of a (B, I) matrix."""
    return {
        histories.items: matrix.indices.astype(np.int64),
        histories.counts: np.diff(matrix.indptr).astype(np.int32),
    }
