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
        portable: whether to use only operations that every device, and converters to other formats,
            have, as an exported graph needs; a server's batches are small, so their speed matters
            little.
        lengths: (B,) int32 number of items of each user's whole history: ``counts``, unless these
            are the items of a range alone.
    """

    items: tf.Tensor
    counts: tf.Tensor
    rows: tf.Tensor
    portable: bool
    lengths: tf.Tensor

    @classmethod
    def of(
        cls,
        items: tf.Tensor,
        counts: tf.Tensor,
        portable: bool = False,
        lengths: tf.Tensor | None = None,
    ) -> SparseBatch:
        """Return a batch of (N,) int64 item indices and (B,) int32 items per user."""
        lengths = counts if lengths is None else lengths
        with uncompiled():
            if portable:
                users = tf.range(tf.size(counts, out_type=tf.int64))
                return cls(items, counts, tf.repeat(users, counts), portable, lengths)
            # The same in a third of the operations: each user but the first adds one at its start.
            # In ONNX, users that start at the same place, since one has no items, would add one.
            ends = tf.cumsum(counts)[:, tf.newaxis]
            starts = tf.scatter_nd(ends, tf.ones_like(counts), tf.shape(items) + 1)
            rows = tf.cast(tf.cumsum(starts)[:-1], tf.int64)
            return cls(items, counts, rows, portable, lengths)

    @property
    def users(self) -> tf.Tensor:
        """B, scalar int32."""
        return tf.size(self.counts)

    @property
    def _for_any_device(self) -> bool:
        """Whether to leave out the operations that CPUs alone have."""
        return self.portable or bool(tf.config.list_physical_devices("GPU"))

    def slice(self, first: tf.Tensor, last: tf.Tensor) -> SparseBatch:
        """Return the users of the rows ``first`` to ``last`` - 1 (scalar int32)."""
        with uncompiled():
            starts = tf.concat([[0], tf.cumsum(self.counts)], axis=0)
            items = self.items[starts[first] : starts[last]]
            counts, lengths = (tensor[first:last] for tensor in (self.counts, self.lengths))
            return SparseBatch.of(items, counts, self.portable, lengths)

    def keep(self, keep_mask: tf.Tensor) -> SparseBatch:
        """Return the items where the (N,) bool mask is true; ``counts`` are unchanged."""
        with uncompiled():
            return self._replace(
                items=tf.boolean_mask(self.items, keep_mask),
                rows=tf.boolean_mask(self.rows, keep_mask),
            )

    def within(self, first: int, end: int) -> SparseBatch:
        """Return the items of the range ``first`` to ``end`` - 1, as indices from its start."""
        with uncompiled():
            part = self.keep((self.items >= first) & (self.items < end))
            counts = tf.math.unsorted_segment_sum(tf.ones_like(part.rows), part.rows, self.users)
            return part._replace(items=part.items - first, counts=tf.cast(counts, tf.int32))

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

    def sum(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return the (B, H) sums of the (I, H) vectors of each user's items, zeros without any.

        On a CPU this is the product of a sparse matrix with a dense one, which uses all cores.
        """
        with uncompiled():
            if self._for_any_device:
                # No other program knows the name of our gradient.
                gradient = {} if self.portable else {_SEGMENT_SUM: _SUM_BY_ITEM}
                with tf.get_default_graph().gradient_override_map(gradient):
                    return tf.sparse.segment_sum(
                        vectors, self.items, self.rows, num_segments=self.users
                    )
            # A product of a matrix without rows ends the process (seen in 2.21).
            missing = tf.maximum(1 - self.users, 0)
            shape = tf.stack([self.users + missing, int(vectors.shape[0])])
            matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
                indices=self.coordinates(),
                values=tf.ones_like(self.items, tf.float32),
                dense_shape=tf.cast(shape, tf.int64),
            )
            return _sparse_product(matrix, vectors, missing)

    def sum_sparse(self, values: tf.Tensor, indices: tf.Tensor, size: int) -> tf.Tensor:
        """Return the (B, size) float32 sums of the sparse vectors of each user's items.

        Args:
            values: (I, K) float32, K values of each item's vector.
            indices: (I, K) int32, their places in it, all different.
            size: length of the vectors.
        """
        with uncompiled():
            places = tf.cast(tf.gather(indices, self.items), tf.int64)
            places += size * self.rows[:, tf.newaxis]
            sums = tf.math.unsorted_segment_sum(
                tf.gather(values, self.items), places, size * self.users
            )
            return tf.reshape(sums, [-1, size])

    def add_to(self, matrix: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Return a (B, I) matrix with (N,) ``values`` added at the users' items.

        On a CPU the sparse addition takes a quarter of the time of a scatter; GPUs have no kernel
        for it.
        """
        with uncompiled():
            if self._for_any_device:
                return tf.tensor_scatter_nd_add(matrix, self.coordinates(), values)
            shape = tf.shape(matrix, out_type=tf.int64)
            return tf.sparse.add(matrix, tf.SparseTensor(self.coordinates(), values, shape))

    def overwrite(self, matrix: tf.Tensor, values: tf.Tensor, max_users: int) -> tf.Tensor:
        """Return what ``add_to`` does, in place of the matrix, which nobody may read afterwards.

        It is in place on a CPU, and with fewer elements than an int32 can count.
        """
        if self._for_any_device or max_users * int(matrix.shape[1]) >= 2**31:
            return self.add_to(matrix, values)
        with uncompiled():
            places = tf.cast(self.rows * int(matrix.shape[1]) + self.items, tf.int32)
            column = tf.reshape(matrix, [-1, 1])
            added = tf.raw_ops.InplaceAdd(x=column, i=places, v=values[:, tf.newaxis])
            return tf.reshape(added, tf.shape(matrix))

    def only(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return a (B, I) matrix with -inf but at the users' items."""
        with uncompiled():
            nothing = tf.fill(tf.shape(matrix), float("-inf"))
            return tf.tensor_scatter_nd_update(nothing, self.coordinates(), self.pick(matrix))


@tf.custom_gradient  # type: ignore[misc]
def _sparse_product(
    matrix: tf.Tensor, vectors: tf.Tensor, missing: tf.Tensor
) -> tuple[tf.Tensor, object]:
    """Return the (B, H) product of a CSR matrix of ones and (I, H) vectors.

    TensorFlow's own gradient multiplies with the transposed matrix in its order in memory, which
    takes three times as long as with a matrix that is transposed first.

    Args:
        matrix: (B + missing, I) float32, TensorFlow's CSR matrix.
        vectors: (I, H) float32.
        missing: scalar int32, the last rows, which are not asked for.
    """

    def gradient(upstream: tf.Tensor) -> list[tf.Tensor | None]:
        with uncompiled():
            rows = tf.pad(upstream, [[0, missing], [0, 0]])  # no copy if none are missing
            by_item = tf.raw_ops.SparseMatrixTranspose(input=matrix, type=tf.float32)
            return [None, tf.raw_ops.SparseMatrixMatMul(a=by_item, b=rows), None]

    product = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=vectors)
    return product[: tf.shape(product)[0] - missing], gradient


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


def placeholders() -> SparseBatch:
    """Return placeholders, to be fed with :func:`feed`."""
    items = tf.placeholder(tf.int64, [None], "items")
    return SparseBatch.of(items, tf.placeholder(tf.int32, [None], "counts"))


def feed(histories: SparseBatch, matrix: csr_matrix) -> dict[tf.Tensor, Any]:
    """Return the feed of :func:`placeholders` for the rows of a (B, I) matrix."""
    return {
        histories.items: matrix.indices.astype(np.int64),
        histories.counts: np.diff(matrix.indptr).astype(np.int32),
    }
