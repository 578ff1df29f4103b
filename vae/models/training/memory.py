"""Check that a host can run a model, before it is built: above all that it fits into memory.

TensorFlow does not always report that it is out of memory: if the zeros of Adam's slots cannot be
allocated, it ends in a segmentation fault. Without ``/proc``, or without threads, it aborts.

What is counted is the minimum: weights, Adam's two slots and the largest gradient. Activations,
which depend on the batch size, the data, TensorFlow itself, other programs and a GPU's memory are
not counted, so a model that passes may still run out of memory; one that does not cannot run.
"""

from __future__ import annotations

import os

import tensorflow.compat.v1 as tf

from vae.baselines.ease import check_ease
from vae.config import Architecture, Config
from vae.errors import UserError
from vae.utils.distributed import Workers
from vae.utils.host import available_bytes, check_process

_FLOAT32_BYTES = 4
_ADAM_SLOTS = 2
_GB = 1e9

_MAX_ELEMENTS = 2**31
"""Maximum size of the item layers' kernels in training: TensorFlow's SparseSegmentSumGrad computes
offsets in 32 bits and ends in a segmentation fault beyond (seen on 2.18.1)."""


def check_host(config: Config, architecture: Architecture, workers: Workers) -> None:
    """Check that this host has what its workers' models need, and the memory for the baselines.

    Raises:
        UserError: it does not.
    """
    check_process(threads=2 * (os.cpu_count() or 1) + 16)  # about as many as TensorFlow starts
    available = available_bytes(workers.local_size)
    check_memory(
        architecture,
        config.modes.train,
        config.needs_checkpoint,
        bool(tf.config.list_physical_devices("GPU")),
        available,
        workers.local_size,
    )
    if config.evaluation.blend == "ease":  # on every worker
        check_ease(architecture.items, available // workers.local_size, "--blend ease")
    elif config.needs_ease and workers.rank == 0:
        check_ease(architecture.items, available, f"--baselines {config.evaluation.baselines}")


def check_memory(
    architecture: Architecture,
    train: bool,
    loaded: bool,
    gpu: bool,
    available: int,
    workers_here: int = 1,
) -> None:
    """Check that a model needs no more memory than available, and that TensorFlow can train it.

    Args:
        architecture: shapes of the weights.
        train: whether the model is trained.
        loaded: whether weights are read from a checkpoint for inference.
        gpu: whether a GPU computes; the host then holds only a copy of the weights.
        available: memory for all workers of this host, in bytes.
        workers_here: number of workers of this host, each of which holds a model.

    Raises:
        UserError: names the memory that is needed and available, and the flags to lower.
    """
    flags = f"--hidden_dim {architecture.hidden_dim} and --latent_dim {architecture.latent_dim}"
    elements = architecture.padded_items * architecture.hidden_dim
    if train and elements > _MAX_ELEMENTS:
        raise UserError(
            f"--hidden_dim {architecture.hidden_dim}: with {architecture.items:,} items a kernel "
            f"would have {elements:,} elements, and TensorFlow trains {_MAX_ELEMENTS:,} at most; "
            f"lower it to {_MAX_ELEMENTS // architecture.padded_items}."
        )
    needed = workers_here * needed_bytes(architecture, train, loaded, gpu)
    if needed > available:
        owners = f" for {workers_here} workers of this host" if workers_here > 1 else ""
        raise UserError(
            f"{flags}: with {architecture.items:,} items the model takes at least "
            f"{needed / _GB:.1f} GB of memory{owners}, and {available / _GB:.1f} GB are available; "
            "lower --hidden_dim or --latent_dim."
        )


def needed_bytes(architecture: Architecture, train: bool, loaded: bool, gpu: bool) -> int:
    """Return the minimum size of one process in the host's memory, in bytes."""
    # A bias counts as one more row of its kernel.
    sizes = {
        name: (inputs + 1) * outputs for name, (inputs, outputs) in architecture.shapes.items()
    }
    layers = list(sizes.values())
    if gpu:
        elements = sum(layers) if train or loaded else 0
    elif train:
        elements = (1 + _ADAM_SLOTS) * sum(layers) + max(layers)
        if architecture.prior == "composite":  # a copy of the encoder
            elements += sum(size for name, size in sizes.items() if name.startswith("encoder/"))
    else:  # variables of the graph, and a copy as they were read
        elements = (1 + loaded) * sum(layers)
    return elements * _FLOAT32_BYTES
