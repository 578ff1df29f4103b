"""The workers of a run: Horovod's ranks, or this process alone.

The rest of the program talks to ``Workers`` and never imports Horovod itself.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from vae.errors import UserError

Result = TypeVar("Result")

_LAUNCHER_SIZES = (
    "HOROVOD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "SLURM_STEP_NUM_TASKS",
)
"""Environment variables in which launchers tell the number of processes: the first that is set.

mpirun within Slurm starts its daemons with srun, whose variables its processes inherit, so srun's
come last. SLURM_NTASKS is not among them: a batch script of one process has it too.
"""


class Workers(Protocol):
    """What a worker knows of the others and what they do together.

    Whatever talks to the others must be called by all of them, in the same order.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    description: str

    def optimizer(self, optimizer: Any) -> Any:
        """The optimizer, applying the sum of all workers' gradients."""

    def sum_tensor(self, tensor: Any) -> Any:
        """A tensor of the graph, summed over the workers at each run."""

    def broadcast_variables(self, session: Any) -> None:
        """Gives every worker rank 0's variables of the session's graph."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order, on every rank; any objects that pickle."""

    def sum(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Element-wise sum over the workers, in float64."""


class SingleWorker:
    """A process alone: nobody to talk to."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

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

    def gather(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]

    def sum(self, values: Sequence[float]) -> NDArray[np.float64]:
        """The values themselves."""
        return np.asarray(values, dtype=np.float64)


class HorovodWorkers:
    """The ranks of a job that mpirun, horovodrun or srun started.

    Args:
        fp16_allreduce: halve the gradients' traffic by sending them as float16.
    """

    def __init__(self, fp16_allreduce: bool) -> None:
        import horovod.tensorflow as hvd

        hvd.init()
        self._hvd = hvd
        self._compression = hvd.Compression.fp16 if fp16_allreduce else hvd.Compression.none
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()
        self.local_size: int = hvd.local_size()
        self.description = f"{self.size} workers (Horovod)"

    def optimizer(self, optimizer: Any) -> Any:
        """Horovod's wrapper; a sum, since each worker divides by the global batch's users."""
        return self._hvd.DistributedOptimizer(
            optimizer, op=self._hvd.Sum, compression=self._compression
        )

    def sum_tensor(self, tensor: Any) -> Any:
        """An allreduce in the graph."""
        return self._hvd.allreduce(tensor, op=self._hvd.Sum)

    def broadcast_variables(self, session: Any) -> None:
        """Overwrites all variables with rank 0's."""
        session.run(self._hvd.broadcast_global_variables(0))

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, pickled on their way."""
        with self._side_session() as session:
            # Without a name Horovod takes the value's type, and ranks with values of different
            # types would wait for each other for ever.
            return list(self._hvd.allgather_object(value, session=session, name="gather"))

    def sum(self, values: Sequence[float]) -> NDArray[np.float64]:
        """An allreduce of its own."""
        import tensorflow.compat.v1 as tf

        with self._side_session() as session:
            tensor = tf.constant(values, tf.float64)
            total: NDArray[np.float64] = session.run(
                self._hvd.allreduce(tensor, op=self._hvd.Sum, name="sum")
            )
            return total

    @contextmanager
    def _side_session(self) -> Iterator[Any]:
        """A small graph on the CPU, beside the model's."""
        import tensorflow.compat.v1 as tf

        settings = tf.ConfigProto(device_count={"GPU": 0})
        with tf.Graph().as_default(), tf.Session(config=settings) as session:
            yield session


def connect(fp16_allreduce: bool = False) -> Workers:
    """Joins the other workers that mpirun, horovodrun or srun started, if any.

    Raises:
        UserError: several processes were started and cannot work together: Horovod is missing,
            cannot be loaded, or does not see all of them.
    """
    variable, launched = _launched()
    if launched == 1:
        return SingleWorker("1 worker (started alone, so Horovod is not used)")
    if importlib.util.find_spec("horovod") is None:
        raise UserError(
            f"{launched} workers were started but Horovod is not installed, so they could not work "
            "together; run 'make horovod', or start a single process."
        )
    try:
        workers = HorovodWorkers(fp16_allreduce)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{launched} workers were started but Horovod cannot be started ({error}); "
            "run 'make horovod' to build it again, or start a single process."
        ) from None
    # An MPI that Horovod was not built with leaves each process in a world of its own.
    if workers.size < launched:
        raise UserError(
            f"{variable}={launched} says that {launched} processes were started, but Horovod sees "
            f"{workers.size}, so that several of them would each train the whole model; start them "
            "with mpirun, horovodrun or srun --mpi=pmix and the MPI that Horovod was built with, "
            f"or unset {variable} for a single process."
        )
    return workers


def _launched() -> tuple[str, int]:
    """The variable that tells how many processes were started, and how many; 1 where none does.

    Raises:
        UserError: its value is no positive integer.
    """
    for name in _LAUNCHER_SIZES:
        value = os.environ.get(name, "")
        if value:
            return name, _positive(name, value)
    return "", 1


def _positive(name: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise UserError(
            f"{name}: {value:.20} is not a positive integer; unset it for a single process, or "
            "start the workers with mpirun, horovodrun or srun, which set it."
        )
    return number


def together(workers: Workers, action: Callable[[], Result]) -> Result:
    """This rank's result of an action that every rank takes, or any rank's ``UserError`` on all.

    So no rank waits for ever for one that has given up.

    Raises:
        UserError: the action raised one on some rank.
    """
    result, problem = None, None
    try:
        result = action()
    except UserError as error:
        problem = (str(error), error.exit_code)
    for rank, found in enumerate(workers.gather(problem)):
        if found is not None:
            message, exit_code = found
            where = f"rank {rank}: " if workers.size > 1 else ""
            raise UserError(where + message, exit_code)
    return cast(Result, result)


def check_agreement(workers: Workers, facts: Mapping[str, Any]) -> None:
    """Makes sure that all ranks were started alike.

    Raises:
        UserError: a fact differs between two ranks; raised on all of them.
    """
    everyone = workers.gather(dict(facts))
    for rank, theirs in enumerate(everyone):
        for name, value in everyone[0].items():
            if theirs[name] != value:
                raise UserError(
                    f"The workers were started differently: {name} is {value!r} on rank 0 and "
                    f"{theirs[name]!r} on rank {rank}; start all of them with the same command "
                    "and the same data."
                )


def share(total: int, rank: int, workers: int) -> slice:
    """The rank's part of ``total`` things in order; parts differ by at most one."""
    return slice(rank * total // workers, (rank + 1) * total // workers)
