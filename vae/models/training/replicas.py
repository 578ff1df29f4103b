"""Equality of the replicas: all ranks of a synchronous training hold the same variables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from vae.errors import UserError
from vae.utils.distributed import Workers


def check_replicas(
    workers: Workers, session: tf.Session, variables: Sequence[tf.Variable], where: str
) -> None:
    """Check that all ranks hold the same weights and optimizer state, bit for bit.

    Every rank starts from rank 0's variables and applies the same sums of gradients, or the same
    gradients, so a difference is a fault: of the memory, the network, or a library. All workers
    must call this together; ``where`` in the run they are is for the message.

    Raises:
        UserError: names the ranks that differ from the most frequent variables, or from rank 0's
            where no others are more frequent. Raised on all ranks.
    """
    if workers.size == 1:
        return
    digests = workers.allgather_object(_digest(session, variables))
    counts = Counter(digests)
    most = max(digests, key=lambda digest: counts[digest])  # the first of the most frequent
    others = [f"rank {rank}" for rank, digest in enumerate(digests) if digest != most]
    if others:
        raise UserError(
            f"The weights of {', '.join(others)} differ from those of rank {digests.index(most)} "
            f"at {where}, so a host's memory, network or library is faulty; nothing was saved: "
            "rerun the same command without that host to resume the latest checkpoint, and see "
            "--check_replicas.",
            exit_code=1,
        )


def _digest(session: tf.Session, variables: Sequence[tf.Variable]) -> str:
    """Return the SHA-256 digest of the variables, one at a time to save memory."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.ascontiguousarray(session.run(variable)).data)
    return digest.hexdigest()
