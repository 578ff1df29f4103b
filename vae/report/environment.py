"""Metadata of the data, hardware and software for reports and model cards."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import numpy as np
import scipy
import tensorflow.compat.v1 as tf

from vae.load.dataset import Dataset
from vae.utils.distributed import Workers
from vae.utils.host import physical_bytes, processor_name
from vae.version import __version__

Metadata = dict[str, str]


def dataset_metadata(dataset: Dataset) -> Metadata:
    """Return the name, counts and fingerprint of a prepared data set."""
    users, items = dataset.train.shape
    return {
        "data set": dataset.name,
        "items": f"{items:,}",
        "training users": f"{users:,}",
        "training interactions": f"{dataset.train.nnz:,}",
        "interactions per training user": f"{dataset.train.nnz / users:.1f}",
        "density": f"{dataset.train.nnz / users / items:.3%}",
        "validation users": f"{len(dataset.validation.user_ids):,}",
        "test users": f"{len(dataset.test.user_ids):,}",
        "dataset fingerprint": dataset.fingerprint,
    }


def hardware_metadata(workers: Workers) -> Metadata:
    """Describe the hardware of rank 0's host."""
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "workers": workers.description,
        "processor": processor_name(),
        "cores": f"{len(os.sched_getaffinity(0))} for this process of {os.cpu_count()}",
        "memory": f"{physical_bytes() / 2**30:.0f} GiB",
        "GPUs": ", ".join(gpus) or "none",
        "system": platform.platform(),
    }


def software_versions() -> Metadata:
    """Return the versions of this program and of the libraries that compute."""
    return {
        "vae": __version__,
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
    }


def program() -> Metadata:
    """Return what the ranks of a run must have in common to train equal replicas.

    The code is that of the ``vae`` package's Python files, as the first 12 hexadecimal digits of
    a SHA-256 digest, since a version is changed by a release alone.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(code)} ".encode() + code)
    versions = software_versions()
    return {f"the version of {name}": versions[name] for name in ("vae", "TensorFlow", "NumPy")} | {
        "the digest of the code": digest.hexdigest()[:12]
    }
