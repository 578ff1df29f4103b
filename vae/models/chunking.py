"""Working through a batch in slices of users, so that memory does not grow with the batch.

The logits of 24,576 users and 20,108 items are 2 GB; those of a slice of 2,048 users are 165 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from vae.models.sparse_input import SparseBatch

_USERS, _MIN_USERS = 2048, 512
"""Of a slice: products of 512 users or more run at full speed (docs/performance.md)."""

_COLUMNS = 20_112
"""Those of the catalogue for which slices were measured: ML-20M's."""


def users_per_chunk(columns: int) -> int:
    """Users in a slice of so many columns; fewer on a wide catalogue, for the sake of memory."""
    return max(_MIN_USERS, min(_USERS, _USERS * _COLUMNS // columns))


class ChunkResult(NamedTuple):
    """What a slice of users yields: tensors to add up, and tensors of one row a user."""

    sums: Sequence[tf.Tensor]
    rows: Sequence[tf.Tensor]


def map_chunks(
    body: Callable[[SparseBatch, Sequence[tf.Tensor]], ChunkResult],
    histories: SparseBatch,
    per_user: Sequence[tf.Tensor],
    max_users: int | None,
    chunk_users: int,
    at_once: int = 1,
) -> ChunkResult:
    """Calls ``body(histories, per_user)`` on slices of the batch and puts the results together.

    Args:
        body: builds the graph of one slice; the shapes of its sums must be static.
        histories: of all B users.
        per_user: further tensors of B rows.
        max_users: the largest B there will be; one slice holds them all if it can, and in any case
            where this is None.
        chunk_users: users in a slice at most. Slices differ by one user at most.
        at_once: slices that the session may work at side by side, if it has threads for that.

    Returns:
        The sums and the rows of all B users.
    """
    if max_users is None or max_users <= chunk_users:
        return body(histories, per_user)

    users = histories.users
    slices = tf.maximum(1, (users + chunk_users - 1) // chunk_users)

    def slice_at(index: tf.Tensor) -> ChunkResult:
        first, last = index * users // slices, (index + 1) * users // slices
        return body(histories.slice(first, last), [tensor[first:last] for tensor in per_user])

    # Traced once outside of the loop for its dtypes and shapes alone; TensorFlow prunes what is
    # never fetched.
    template = slice_at(tf.constant(0))

    def step(
        index: tf.Tensor, sums: list[tf.Tensor], rows: list[tf.TensorArray]
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.TensorArray]]:
        result = slice_at(index)
        return (
            index + 1,
            [total + part for total, part in zip(sums, result.sums, strict=True)],
            [array.write(index, part) for array, part in zip(rows, result.rows, strict=True)],
        )

    zeros = [tf.zeros(part.shape, part.dtype) for part in template.sums]
    arrays = [
        tf.TensorArray(part.dtype, slices, infer_shape=False, element_shape=[None, *part.shape[1:]])
        for part in template.rows
    ]
    _, sums, rows = tf.while_loop(
        lambda index, *_: index < slices,
        step,
        (tf.constant(0), zeros, arrays),
        parallel_iterations=at_once,
        back_prop=False,
    )
    return ChunkResult(sums, [array.concat() for array in rows])
