"""Checkpoints of divided items: rank 0 alone reads and writes them, a part of a variable at a time.

TensorFlow's files may hold a variable in parts. Whoever reads such a checkpoint, with
``tf.train.Saver`` or whole variables by name, sees no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.models.graph.item_shard import ItemShard
from vae.utils.distributed import cpu_session, raise_on_all


class Block(NamedTuple):
    """A rank's part of a variable.

    Attributes:
        place: TensorFlow's description of the part: the whole shape, first index and length.
    """

    name: str
    place: str
    values: NDArray[np.float32]


def whole_shape(shard: ItemShard, variable: tf.Variable) -> list[int]:
    """Return the shape of a variable of all items."""
    shape, axis = variable.shape.as_list(), shard.axis(variable.op.name)
    return shape if axis is None else [*shape[:axis], shard.padded_items, *shape[axis + 1 :]]


def collect_blocks(shard: ItemShard, session: tf.Session) -> Iterator[Block]:
    """Yield all blocks on all ranks, with their values on rank 0 at least; all must read on."""
    for variable, rank, place, shape in _blocks(shard, session):
        is_mine = rank == shard.workers.rank
        values = session.run(variable) if is_mine else np.empty(shape, np.float32)
        if rank:
            values = shard.workers.broadcast_array(values, rank)
        yield Block(variable.op.name, place, values)


def distribute_blocks(
    shard: ItemShard, session: tf.Session, read: Callable[[str, str], NDArray[np.float32]]
) -> None:
    """Load all blocks, each on its rank, from ``read(name, place)`` on rank 0.

    Raises:
        UserError: raised by ``read``; on all ranks.
    """

    def on_rank(name: str, place: str, shape: list[int]) -> NDArray[np.float32]:
        return read(name, place) if shard.workers.rank == 0 else np.empty(shape, np.float32)

    for variable, rank, place, shape in _blocks(shard, session):
        values = raise_on_all(shard.workers, partial(on_rank, variable.op.name, place, shape))
        if rank:
            values = shard.workers.broadcast_array(values, 0)
        if rank == shard.workers.rank:
            variable.load(values, session)


def _blocks(
    shard: ItemShard, session: tf.Session
) -> Iterator[tuple[tf.Variable, int, str, list[int]]]:
    """Yield each variable of divided items with each rank, its place and its shape."""
    # Not those of the default graph, which is another one while a block is written.
    for variable in session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES):
        axis = shard.axis(variable.op.name)
        if axis is None:
            continue
        whole = whole_shape(shard, variable)
        for rank in range(shard.workers.size):
            own, shape = shard.range_of(rank), shard.shape(whole, axis, rank)
            places = ["-"] * len(whole)
            places[axis] = f"{own.start},{shape[axis]}"
            yield variable, rank, f"{' '.join(map(str, whole))} {':'.join(places)}", shape


def merge(prefix: str, parts: list[str], blocks: Iterable[Block]) -> None:
    """Write blocks beside the parts of a checkpoint, and make all of them the one of a prefix."""
    with cpu_session() as session:
        path, name, place = (tf.placeholder(tf.string, []) for _ in range(3))
        values = tf.placeholder(tf.float32)
        save = tf.raw_ops.SaveV2(
            prefix=path, tensor_names=[name], shape_and_slices=[place], tensors=[values]
        )
        for block in blocks:
            parts.append(f"{prefix}-{len(parts)}")
            feed = {path: parts[-1], name: block.name, place: block.place, values: block.values}
            session.run(save, feed)
        session.run(
            tf.raw_ops.MergeV2Checkpoints(
                checkpoint_prefixes=parts, destination_prefix=prefix, delete_old_dirs=False
            )
        )
