"""Whether a model fits into memory, known from its shape before anything is built.

TensorFlow does not always say that memory has run out: where the zeros of Adam's slots cannot be
allocated it writes to address 0, a segmentation fault.

Only what has to be there is counted: weights, Adam's two slots and the largest gradient. The
activations, which grow with the batch, the data, TensorFlow itself, what other programs use and a
GPU's memory are not, so a model that passes may still run out of memory; one that does not pass
cannot run.

TensorFlow does not always say that memory has run out: where the zeros of Adam's slots cannot be
allocated it writes to address 0, a segmentation fault.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import tensorflow.compat.v1 as tf

from vae.config import Config
from vae.errors import UserError
from vae.models.vae import Architecture
from vae.utils.distributed import Workers

_FLOAT32_BYTES = 4
_ADAM_SLOTS = 2
_GB = 1e9

_MAX_ELEMENTS = 2**31
"""Of the item layers' kernels in training: TensorFlow's SparseSegmentSumGrad computes the place of
a row in 32 bits, and ends the process with a segmentation fault beyond (seen on 2.18.1)."""


def check_host(config: Config, architecture: Architecture, workers: Workers) -> None:
    """Make sure that this host has the memory for its workers' models.

    Raises:
        UserError: it has not.
    """
    check_memory(
        architecture,
        config.train,
        config.loads_a_model,
        bool(tf.config.list_physical_devices("GPU")),
        available_bytes(workers.local_size),
        workers.local_size,
    )


def check_memory(
    architecture: Architecture,
    train: bool,
    loaded: bool,
    gpu: bool,
    available: int,
    workers_here: int = 1,
) -> None:
    """Refuses a model that needs more memory than there is, or that TensorFlow cannot train.

    Args:
        architecture: gives the weights their shapes.
        train: whether it is trained.
        loaded: whether weights are read from a checkpoint for inference.
        gpu: whether a GPU computes; the host then holds a copy of the weights alone.
        available: bytes of memory that all workers of this host can have together.
        workers_here: how many they are, each with a model of its own.

    Raises:
        UserError: names what is needed, what there is, and the flags to lower.
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
        by = f" by {workers_here} workers of this host" if workers_here > 1 else ""
        raise UserError(
            f"{flags}: with {architecture.items:,} items the model takes at least "
            f"{needed / _GB:.1f} GB of memory{by}, and there are {available / _GB:.1f} GB; "
            "lower --hidden_dim or --latent_dim."
        )


def needed_bytes(architecture: Architecture, train: bool, loaded: bool, gpu: bool) -> int:
    """What one process must hold at least, in the host's memory."""
    layers = [rows * columns for rows, columns in _shapes(architecture)]
    if gpu:
        elements = sum(layers) if train or loaded else 0
    elif train:
        elements = (1 + _ADAM_SLOTS) * sum(layers) + max(layers)
    else:  # as variables of the graph, and as they were read
        elements = (1 + loaded) * sum(layers)
    return elements * _FLOAT32_BYTES


def available_bytes(workers_here: int = 1, root: Path = Path("/")) -> int:
    """What the workers of this host can have together at most.

    The host's memory, the limit of this process's control group, which its workers are taken to
    share, and the limit of each one's address space (``ulimit -v``).

    Args:
        workers_here: how many they are.
        root: of the file system.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [physical, *_control_group_limits(root)]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(workers_here * address_space)
    return min(limits)


def _shapes(architecture: Architecture) -> Iterator[tuple[int, int]]:
    """The four layers' shapes, a bias counted as one more row of its kernel."""
    items, hidden, latent = (
        architecture.padded_items,
        architecture.hidden_dim,
        architecture.latent_dim,
    )
    yield items + 1, hidden
    yield hidden + 1, 2 * latent
    yield latent + 1, hidden
    yield hidden + 1, items


def _control_group_limits(root: Path) -> Iterator[int]:
    """Limits in bytes of this process's control groups and the groups that these are in.

    Inside a container the groups' names may be the host's: what the container may have then stands
    at the top of the tree.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            tree, file = mounts, "memory.max"
        elif "memory" in controllers.split(","):
            tree, file = mounts / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = tree / name.lstrip("/")
        for folder in (group, *group.parents):
            yield from _limit(folder / file)
            if folder == tree:
                break


def _limit(path: Path) -> Iterator[int]:
    """The number in a file; nothing where there is none, or it says ``max``."""
    try:
        yield int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
