"""Sparse batches: the items of each user of a batch, as tensors (CSR without its values)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from scipy.sparse import csr_matrix

from vae.models.xla import uncompiled


class SparseBatch(NamedTuple):
    """The items of B users, user by user, N in all.

    Attributes:
        items: (N,) int64 columns.
        counts: (B,) int32 items of each user.
        rows: (N,) int64 row of each item's user, 0 to B - 1.
    """

    items: tf.Tensor
    counts: tf.Tensor
    rows: tf.Tensor

    @classmethod
    def of(cls, items: tf.Tensor, counts: tf.Tensor) -> SparseBatch:
        """Return a batch from the items and the number of items of each user."""
        with uncompiled():
            users = tf.range(tf.size(counts, out_type=tf.int64))
            return cls(items, counts, tf.repeat(users, counts))

    @property
    def users(self) -> tf.Tensor:
        """B, as a scalar int32."""
        return tf.size(self.counts)

    def slice(self, first: tf.Tensor, last: tf.Tensor) -> SparseBatch:
        """Return the users from row ``first`` up to, not including, row ``last``."""
        with uncompiled():
            starts = tf.concat([[0], tf.cumsum(self.counts)], axis=0)
            return SparseBatch.of(self.items[starts[first] : starts[last]], self.counts[first:last])

    def keep(self, kept: tf.Tensor) -> SparseBatch:
        """The items where the (N,) bool ``kept`` is true; ``counts`` stay as they are."""
        with uncompiled():
            return self._replace(
                items=tf.boolean_mask(self.items, kept), rows=tf.boolean_mask(self.rows, kept)
            )

    def coordinates(self) -> tf.Tensor:
        """(N, 2) int64 (row, column) of each item."""
        with uncompiled():
            return tf.stack([self.rows, self.items], axis=1)

    def spread(self, per_user: tf.Tensor) -> tf.Tensor:
        """(N,) the value of each item's user, from (B,) values."""
        with uncompiled():
            return tf.gather(per_user, self.rows)

    def pick(self, matrix: tf.Tensor) -> tf.Tensor:
        """(N,) the values of a (B, I) matrix at the users' items."""
        with uncompiled():
            return tf.gather_nd(matrix, self.coordinates())

    def weighted_sum(self, weights: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """(B, H) sum over each user's items of the items' (I, H) vectors times (B,) weights."""
        with uncompiled():
            # TensorFlow's gradient of a segment sum over no items at all is uninitialised memory
            # (SparseSegmentSumGrad, seen in 2.18 and 2.21). Item 0 in a last row of its own, which
            # is dropped again, makes sure that there is an item; its gradient there is zero.
            items = tf.pad(self.items, [[0, 1]])
            rows = tf.concat([self.rows, [tf.cast(self.users, tf.int64)]], axis=0)
            sums = tf.sparse.segment_sum(vectors, items, rows, num_segments=self.users + 1)
            sums = sums[:-1]
        return weights[:, tf.newaxis] * sums

    def add_to(self, matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """A (B, I) matrix with (N,) ``values`` added at the users' items.

        On a CPU the sparse addition takes a quarter of the time of a scatter; GPUs have no kernel
        for it.
        """
        if tf.config.list_physical_devices("GPU"):
            return self.scatter_to(matrix, values)
        with uncompiled():
            shape = tf.shape(matrix, out_type=tf.int64)
            return tf.sparse.add(matrix, tf.SparseTensor(self.coordinates(), values, shape))

    def scatter_to(self, matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """The same as ``add_to``, by an operation that runs everywhere."""
        with uncompiled():
            return tf.tensor_scatter_nd_add(matrix, self.coordinates(), values)


class PortableSparseBatch(SparseBatch):
    """A batch for exported graphs: operations that GPUs have, and converters to other formats.

    A batch of a server is small, so their speed matters little.
    """

    def add_to(self, matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """As ``SparseBatch`` does it."""
        return self.scatter_to(matrix, values)


def placeholders() -> SparseBatch:
    """Return placeholders to be fed with :func:`feed`."""
    return SparseBatch.of(
        tf.placeholder(tf.int64, [None], "items"),
        tf.placeholder(tf.int32, [None], "counts"),
    )


def feed(histories: SparseBatch, matrix: csr_matrix) -> dict[tf.Tensor, Any]:
    """Feeds :func:`placeholders` with the rows of a (B, I) matrix."""
    return {
        histories.items: matrix.indices.astype(np.int64),
        histories.counts: np.diff(matrix.indptr).astype(np.int32),
    }
