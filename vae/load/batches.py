"""Training batches: each worker's shard of each global batch, as functions of (seed, epoch) alone.

Neither the number of workers nor the batch that an epoch starts with changes the order of users or
the items that dropout removes from a user's input: exact resumption and equal results for any
number of workers depend on it. The random numbers are those of Philox, a counter-based
generator (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.utils.distributed import shard

_ORDER, _DROPOUT = range(2)
"""Independent streams of random numbers."""

_BLOCK = 1 << 20
"""Random numbers of dropout that are drawn at a time."""


@dataclass(frozen=True)
class Batch:
    """One worker's shard of one global batch: B users with N items in all.

    Attributes:
        items: (N,) int64 item indices, user by user, before dropout.
        counts: (B,) int32 number of items per user, before dropout.
        keep_mask: (N,) bool, true for the items that survive dropout.
        first_user: position of the shard's first user in the global batch.
        global_users: number of users in the global batch.
        step: number of optimizer steps of the run before this one.
    """

    items: NDArray[np.int64]
    counts: NDArray[np.int32]
    keep_mask: NDArray[np.bool_]
    first_user: int
    global_users: int
    step: int


@dataclass(frozen=True)
class TrainingBatches:
    """The batches of a training set: every user once per epoch, the last partial batch included.

    Attributes:
        train: (users, items) training matrix.
        batch_size: users per global batch; the shards of workers differ by one user at most.
        seed: seed of the order of users and of dropout.
        dropout: fraction of the items to drop.
    """

    train: csr_matrix
    batch_size: int
    seed: int
    dropout: float
    rank: int = 0
    workers: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of global batches in an epoch."""
        users: int = self.train.shape[0]
        return math.ceil(users / self.batch_size)

    @property
    def max_shard_users(self) -> int:
        """Return the largest number of users in a shard."""
        users: int = min(self.batch_size, self.train.shape[0])
        return math.ceil(users / self.workers)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from ``first_batch`` on.

        If the last batch has fewer users than there are workers, empty shards are yielded too: all
        workers see the same number of batches.
        """
        order = self._generator(epoch, _ORDER).permutation(self.train.shape[0])
        # Drawn for all users, in a thousandth of an epoch's time: neither the number of workers nor
        # the batch size changes which items a user keeps.
        generator, mask = self._generator(epoch, _DROPOUT), np.empty(self.train.nnz, np.bool_)
        for block in np.array_split(mask, self.train.nnz // _BLOCK + 1):  # a byte per item, not 5
            block[:] = generator.random(len(block), dtype=np.float32) >= self.dropout
        # With the mask as the matrix's values, one selection of rows yields both items and mask.
        masked = csr_matrix((mask, self.train.indices, self.train.indptr), self.train.shape)
        for batch in range(first_batch, self.steps_per_epoch):
            users = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            part = shard(len(users), self.rank, self.workers)
            rows = masked[users[part]]
            yield Batch(
                items=rows.indices.astype(np.int64),
                counts=np.diff(rows.indptr).astype(np.int32),
                keep_mask=rows.data,
                first_user=part.start,
                global_users=len(users),
                step=epoch * self.steps_per_epoch + batch,
            )

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox([self.seed, epoch, stream]))
