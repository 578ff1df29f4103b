"""The workers of a run: Horovod's ranks, or this process alone.

The rest of the program talks to ``Workers`` and never imports Horovod itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vae.errors import UserError

_LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Environment variables in which mpirun and horovodrun tell the number of workers."""


class Workers(Protocol):
    """What a worker knows of the others and what they do together."""

    rank: int
    size: int
    local_rank: int
    description: str

    def optimizer(self, optimizer: Any) -> Any:
        """The optimizer, applying the sum of all workers' gradients."""

    def sum_tensor(self, tensor: Any) -> Any:
        """A tensor of the graph, summed over the workers at each run."""

    def broadcast_variables(self, session: Any) -> None:
        """Give every worker rank 0's variables of the session's graph."""

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank; any object that pickles."""

    def sum(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Element-wise sum over the workers, in float64."""


def share(total: int, rank: int, workers: int) -> slice:
    """The rank's part of ``total`` things in order; parts differ by at most one."""
    return slice(rank * total // workers, (rank + 1) * total // workers)


class SingleWorker:
    """A process alone: nobody to talk to."""

    rank = 0
    size = 1
    local_rank = 0

    def __init__(self, description: str) -> None:
        self.description = description

    def optimizer(self, optimizer: Any) -> Any:
        """The optimizer itself."""
        return optimizer

    def sum_tensor(self, tensor: Any) -> Any:
        """The tensor itself."""
        return tensor

    def broadcast_variables(self, session: Any) -> None:
        """Nothing to do."""

    def broadcast(self, value: Any) -> Any:
        """The value itself."""
        return value

    def sum(self, values: Sequence[float]) -> NDArray[np.float64]:
        """The values themselves."""
        return np.asarray(values, dtype=np.float64)


def launched_workers() -> int:
    """How many workers the launcher started; 1 without a launcher."""
    return max(int(os.environ.get(name, "1")) for name in _LAUNCHER_SIZES)


def connect() -> Workers:
    """Joins the other workers that mpirun or horovodrun started, if any.

    Raises:
        UserError: several workers were started and Horovod is not installed.
    """
    if launched_workers() == 1:
        return SingleWorker("1 worker (no launcher, so Horovod is not used)")
    raise UserError("several workers are not built yet; start a single process.")
