"""Processing a batch in chunks of users, so that memory does not grow with the batch.

The logits of 24,576 users and 20,108 items are 2 GB; those of a chunk of 2,048 users are 165 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from vae.models.graph.sparse_input import SparseBatch

_USERS, _MIN_USERS = 2048, 512
"""Users per chunk: matmuls of 512 users or more run at full speed (docs/performance.md)."""

_ITEMS = 20_112
"""Items of ML-20M, for which these numbers were measured."""


def users_per_chunk(items: int) -> int:
    """Return the number of users per chunk; more items make smaller chunks, to save memory."""
    return max(_MIN_USERS, min(_USERS, _USERS * _ITEMS // items))


class ChunkResult(NamedTuple):
    """Tensors to sum over the chunks, and tensors to concatenate, with one row per user."""

    sums: Sequence[tf.Tensor]
    rows: Sequence[tf.Tensor]


def map_chunks(
    body: Callable[[SparseBatch, Sequence[tf.Tensor]], ChunkResult],
    histories: SparseBatch,
    per_user: Sequence[tf.Tensor],
    max_users: int,
    chunk_users: int,
    parallel_chunks: int = 1,
) -> ChunkResult:
    """Apply ``body(histories, per_user)`` to chunks of the batch; return the sums and all rows.

    Args:
        body: builds the graph of one chunk; the shapes of its sums must be static.
        histories: items of B users.
        per_user: further tensors of B rows.
        max_users: maximum B; if one chunk can hold that many, the batch is not divided.
        chunk_users: maximum number of users per chunk. Chunks differ by at most one user.
        parallel_chunks: chunks that the session may process at the same time, if it has the
            threads.
    """
    if max_users <= chunk_users:
        return body(histories, per_user)

    users = histories.users
    chunks = tf.maximum(1, (users + chunk_users - 1) // chunk_users)

    def chunk_at(index: tf.Tensor) -> ChunkResult:
        first, last = index * users // chunks, (index + 1) * users // chunks
        return body(histories.slice(first, last), [tensor[first:last] for tensor in per_user])

    # Built once outside of the loop for its dtypes and shapes; TensorFlow prunes what is never
    # fetched.
    template = chunk_at(tf.constant(0))

    def loop_body(
        index: tf.Tensor, sums: list[tf.Tensor], rows: list[tf.TensorArray]
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.TensorArray]]:
        result = chunk_at(index)
        return (
            index + 1,
            [total + part for total, part in zip(sums, result.sums, strict=True)],
            [array.write(index, part) for array, part in zip(rows, result.rows, strict=True)],
        )

    zeros = [tf.zeros(part.shape, part.dtype) for part in template.sums]
    arrays = [
        tf.TensorArray(part.dtype, chunks, infer_shape=False, element_shape=[None, *part.shape[1:]])
        for part in template.rows
    ]
    _, sums, rows = tf.while_loop(
        lambda index, *_: index < chunks,
        loop_body,
        (tf.constant(0), zeros, arrays),
        parallel_iterations=parallel_chunks,
        back_prop=False,
    )
    return ChunkResult(sums, [array.concat() for array in rows])
