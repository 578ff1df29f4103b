"""Check that a host can run a model, before it is built: above all that it fits into memory.

TensorFlow does not always report that it is out of memory: if the zeros of Adam's slots cannot be
allocated, it ends in a segmentation fault. Without ``/proc``, or without threads, it aborts.

What is counted is the minimum: weights, Adam's two slots and the largest gradient. Activations,
which depend on the batch size, the data, TensorFlow itself, other programs and a GPU's memory are
not counted, so a model that passes may still run out of memory; one that does not cannot run.

Raises:
    UserError: the host does not suffice; names the memory that is needed and available, and the
        flags to change.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress

import tensorflow.compat.v1 as tf

from vae.baselines import ease
from vae.config import ITEM_MULTIPLE, Architecture, Evaluation
from vae.errors import UserError
from vae.utils.distributed import Workers
from vae.utils.host import available_bytes, check_process

_FLOAT32_BYTES = 4
_ADAM_SLOTS = 2
_GB = 1e9

_MAX_ELEMENTS = 2**31
"""Maximum size of the item layers' kernels in training: TensorFlow's SparseSegmentSumGrad computes
offsets in 32 bits and ends in a segmentation fault beyond (seen on 2.18.1)."""


def check_host(
    architecture: Architecture, train: bool, loaded: bool, workers: Workers, divided: bool = False
) -> None:
    """Check that this host has what its workers' models need, of divided items their shards."""
    shards = workers.size if divided else 1
    if architecture.padded_items < ITEM_MULTIPLE * shards:
        raise UserError(
            f"--parallel items: {architecture.items:,} items are too few for {shards} workers; "
            "leave it out, or start fewer."
        )
    check_process(threads=2 * (os.cpu_count() or 1) + 16)  # about as many as TensorFlow starts
    gpu = bool(tf.config.list_physical_devices("GPU"))
    available = available_bytes(workers.local_size)
    check_memory(architecture, train, loaded, gpu, available, workers.local_size, shards)


def check_ease_memory(users: int, items: int, evaluation: Evaluation, workers: Workers) -> None:
    """Check that EASE fits into memory: with a blend on each worker, else on rank 0 alone."""
    available = available_bytes(workers.local_size)
    if evaluation.blend == "ease":
        ease.weights_per_item(users, items, available // workers.local_size)
    elif workers.rank == 0:
        ease.check_memory(f"--baselines {evaluation.baselines}", users, items, available)


def ease_fits(users: int, items: int, workers: Workers) -> bool:
    """Return whether a blend has room for all weights of EASE on each worker of this host."""
    memory = available_bytes(workers.local_size) // workers.local_size
    with suppress(UserError):
        return ease.weights_per_item(users, items, memory) == items
    return False


def check_memory(
    architecture: Architecture,
    train: bool,
    loaded: bool,
    gpu: bool,
    available: int,
    workers_here: int = 1,
    shards: int = 1,
) -> None:
    """Check that a model needs no more memory than available, and that TensorFlow can train it.

    Args:
        architecture: shapes of the weights.
        train: whether the model is trained.
        loaded: whether weights are read from a checkpoint for inference.
        gpu: whether a GPU computes; the host then holds only a copy of the weights.
        available: memory for all workers of this host, in bytes.
        workers_here: number of workers of this host, each of which holds a model, or a shard.
        shards: number of workers that divide the items in training.
    """
    items, hidden = architecture.items, architecture.hidden_dim
    elements = architecture.padded_items * hidden // shards
    if train and elements > _MAX_ELEMENTS:
        raise UserError(
            f"--hidden_dim {hidden}: with {items:,} items a kernel would have {elements:,} "
            f"elements, and TensorFlow trains {_MAX_ELEMENTS:,} at most; lower it to "
            f"{_MAX_ELEMENTS * shards // architecture.padded_items}."
        )
    needed = workers_here * needed_bytes(architecture, train, loaded, gpu, shards)
    if needed > available:
        owners = f" for {workers_here} workers of this host" if workers_here > 1 else ""
        more = [workers_here * 2**n for n in range(11)] if train and shards == 1 else []
        divided = {n: needed_bytes(architecture, train, loaded, gpu, n) for n in more if n > 1}
        fitting = [n for n, size in divided.items() if workers_here * size <= available]
        hint = ""
        if fitting:
            size, here = divided[fitting[0]] / _GB, f"{workers_here} per host"
            hint = f", or use --parallel items: on {fitting[0]} workers, {here}, {size:.1f} GB each"
        raise UserError(
            f"--hidden_dim {hidden} and --latent_dim {architecture.latent_dim}: with {items:,} "
            "items the model takes at least "
            f"{needed / _GB:.1f} GB of memory{owners}, and {available / _GB:.1f} GB are available; "
            f"lower --hidden_dim or --latent_dim{hint}."
        )


def needed_bytes(
    architecture: Architecture, train: bool, loaded: bool, gpu: bool, shards: int = 1
) -> int:
    """Return the minimum size of one process in the host's memory, in bytes."""
    if train and loaded and shards > 1:  # first a shard, and then the whole model
        return max(
            needed_bytes(architecture, True, False, gpu, shards),
            needed_bytes(architecture, False, True, gpu),
        )
    layers = parameters(architecture, shards)
    weights = sum(layers.values())
    if gpu:
        elements = weights if train or loaded else 0
    elif train:
        return checkpoint_bytes(architecture, shards) + _FLOAT32_BYTES * max(layers.values())
    else:  # variables of the graph, and a copy as they were read
        elements = (1 + loaded) * weights
    return elements * _FLOAT32_BYTES


def checkpoint_bytes(architecture: Architecture, shards: int = 1) -> int:
    """Return the size of the variables in training, a few scalars aside, in bytes."""
    layers = parameters(architecture, shards)
    elements = (1 + _ADAM_SLOTS) * sum(layers.values())
    if architecture.prior == "composite":  # a copy of the encoder
        elements += sum(size for name, size in layers.items() if name.startswith("encoder/"))
    return elements * _FLOAT32_BYTES


def parameters(architecture: Architecture, shards: int = 1) -> dict[str, int]:
    """Return the number of weights of each layer by its name, of those of items in one shard."""
    # A bias counts as one more row of its kernel; gain and bias of a normalisation are two.
    norms = 2 * (architecture.encoder == "dense")
    layers = {
        name: (rows + 1 + norms * name.startswith("encoder/hidden")) * columns
        for name, (rows, columns) in architecture.shapes.items()
    }
    for name in ("encoder/hidden", "decoder/items"):
        layers[name] = math.ceil(layers[name] / shards)
    return layers
