"""Check that a host can run a model, before it is built: above all that it fits into memory.

TensorFlow does not always report that it is out of memory: if the zeros of Adam's slots cannot be
allocated, it ends in a segmentation fault. Without ``/proc``, or without threads, it aborts.

What is counted is the minimum: weights, Adam's two slots and the largest gradient. Activations,
which depend on the batch size, the data, TensorFlow itself, other programs and a GPU's memory are
not counted, so a model that passes may still run out of memory; one that does not cannot run.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import tensorflow.compat.v1 as tf

from vae.baselines.ease import check_ease
from vae.config import Architecture, Config
from vae.errors import UserError
from vae.utils.distributed import Workers

_FLOAT32_BYTES = 4
_ADAM_SLOTS = 2
_GB = 1e9

_MAX_ELEMENTS = 2**31
"""Maximum size of the item layers' kernels in training: TensorFlow's SparseSegmentSumGrad computes
offsets in 32 bits and ends in a segmentation fault beyond (seen on 2.18.1)."""


_PROCESS = Path("/proc/self/exe")
"""TensorFlow looks it up when it saves, and aborts where it is missing."""


def check_host(config: Config, architecture: Architecture, workers: Workers) -> None:
    """Check that this host has what its workers' models need, and the memory for the baselines.

    Raises:
        UserError: it does not.
    """
    if not os.path.lexists(_PROCESS):
        raise UserError(f"{_PROCESS}: file not found, and TensorFlow needs it; mount /proc.")
    _check_threads(2 * (os.cpu_count() or 1) + 16)
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


def _check_threads(count: int) -> None:
    """Check that this process can start about as many threads as TensorFlow.

    Raises:
        UserError: it cannot.
    """
    is_over = threading.Event()
    threads = [threading.Thread(target=is_over.wait) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        raise UserError(
            f"this process cannot start {count} threads; raise the limit on processes (ulimit -u).",
            exit_code=1,
        ) from None
    finally:
        is_over.set()


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


def available_bytes(workers_here: int = 1, root: Path = Path("/")) -> int:
    """Return the memory available to all workers of this host, in bytes.

    The minimum of the host's memory, the limit of this process's control group, which the workers
    are assumed to share, and the limits of their address spaces (``ulimit -v``).

    Args:
        workers_here: number of workers of this host.
        root: root of the file system.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [physical, *_control_group_limits(root)]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(workers_here * address_space)
    return min(limits)


def _control_group_limits(root: Path) -> Iterator[int]:
    """Yield the limits, in bytes, of this process's control groups and their parents.

    Inside a container the names of the groups may be the host's; the container's limit is then that
    of the root group.
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
    """Yield the number in a file; nothing if there is none, or for ``max``."""
    try:
        yield int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
