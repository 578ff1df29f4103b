"""The workers of a run: Horovod ranks, or a single process.

Other modules use ``Workers`` and never import Horovod.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from vae.errors import UserError
from vae.utils.watchdog import Watchdog, deadline

Result = TypeVar("Result")

_LAUNCHER_SIZES = (
    "HOROVOD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "SLURM_STEP_NUM_TASKS",
)
"""Environment variables of launchers with the number of processes; the first that is set counts.

mpirun within Slurm starts its daemons with srun, whose variables its processes inherit, so srun's
come last. SLURM_NTASKS is not among them: a batch script of one process has it too.
"""


class Workers(Protocol):
    """A rank's view of the job, and the collective operations.

    All ranks must call the collective operations, in the same order.

    Attributes:
        rank: 0 to ``size`` - 1.
        size: ranks of the job.
        local_rank: the rank among those of this host.
        local_size: ranks of this host.
        description: number of workers, for the log.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    description: str

    def optimizer(self, optimizer: Any) -> Any:
        """Wrap an optimizer so that it applies the sum of all ranks' gradients."""

    def allreduce_tensor(self, tensor: Any) -> Any:
        """Return a tensor of the graph that sums a tensor over the ranks at each run."""

    def allreduce(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Sum values over the ranks, element by element, in float64."""

    def allgather_object(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order, on every rank; anything that pickles."""

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value on every rank; anything that pickles."""

    def broadcast_variables(self, session: Any) -> None:
        """Overwrite every rank's variables of the session's graph with rank 0's."""

    def report_step(self, step: int | None) -> None:
        """Tell the watchdog that this rank works on a step; None: on something else."""


class SingleWorker:
    """A single process, without Horovod."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

    def __init__(self, description: str) -> None:
        self.description = description

    def optimizer(self, optimizer: Any) -> Any:
        """Return the optimizer as it is."""
        return optimizer

    def allreduce_tensor(self, tensor: Any) -> Any:
        """Return the tensor as it is."""
        return tensor

    def allreduce(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Return the values as they are."""
        return np.asarray(values, dtype=np.float64)

    def allgather_object(self, value: Any) -> list[Any]:
        """Return the value alone."""
        return [value]

    def broadcast_object(self, value: Any) -> Any:
        """Return the value as it is."""
        return value

    def broadcast_variables(self, session: Any) -> None:
        """Do nothing."""

    def report_step(self, step: int | None) -> None:
        """Do nothing."""


class HorovodWorkers:
    """The ranks of a job that mpirun, horovodrun or srun started.

    Args:
        fp16_allreduce: halve the gradients' traffic by sending them as float16.
        stall_timeout: seconds after which the process ends if another rank does not join, is
            silent, or no step ends; 0: never.
    """

    def __init__(self, fp16_allreduce: bool, stall_timeout: float) -> None:
        import horovod.tensorflow as hvd

        # Registered before Horovod's own end, so run after it: until then, ranks wait for others.
        atexit.register(self._close)
        self._watchdog: Watchdog | None = None
        with deadline(
            stall_timeout,
            f"not all workers joined within {stall_timeout:.0f} s; see the messages of the others, "
            "and start all of them with the same command",
        ):
            self._join(hvd, fp16_allreduce)
            if stall_timeout:
                self._watch(stall_timeout)

    def _join(self, hvd: Any, fp16_allreduce: bool) -> None:
        hvd.init()
        self._hvd = hvd
        self._compression = hvd.Compression.fp16 if fp16_allreduce else hvd.Compression.none
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()
        self.local_size: int = hvd.local_size()
        self.description = f"{self.size} workers (Horovod)"

    def _watch(self, stall_timeout: float) -> None:
        watchdog = Watchdog(self.rank, self.size, stall_timeout)
        one_host = self.local_size == self.size
        address = watchdog.listen(one_host) if self.rank == 0 else None
        watchdog.start(self.broadcast_object(address))
        self._watchdog = watchdog

    def _close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()

    def report_step(self, step: int | None) -> None:
        """Tell the watchdog, if there is one."""
        if self._watchdog is not None:
            self._watchdog.report(step)

    def optimizer(self, optimizer: Any) -> Any:
        """Wrap it in Horovod's; a sum, since each rank divides by the global batch's users."""
        return self._hvd.DistributedOptimizer(
            optimizer, op=self._hvd.Sum, compression=self._compression
        )

    def allreduce_tensor(self, tensor: Any) -> Any:
        """Add an allreduce to the graph."""
        return self._hvd.allreduce(tensor, op=self._hvd.Sum)

    def allreduce(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Run an allreduce of its own."""
        import tensorflow.compat.v1 as tf

        with self._side_session() as session:
            tensor = tf.constant(values, tf.float64)
            total: NDArray[np.float64] = session.run(
                self._hvd.allreduce(tensor, op=self._hvd.Sum, name="allreduce")
            )
            return total

    # The names are explicit: by default Horovod names an operation after the type of the value, and
    # ranks with values of different types would wait for each other for ever.

    def allgather_object(self, value: Any) -> list[Any]:
        """Pickle, allgather and unpickle."""
        with self._side_session() as session:
            return list(self._hvd.allgather_object(value, session=session, name="allgather"))

    def broadcast_object(self, value: Any) -> Any:
        """Allgather, to which the other ranks contribute nothing.

        Of Horovod's two broadcasts of objects one needs an API that TensorFlow 2 lacks, and the
        other waited for ever in a session (0.28.1).
        """
        return self.allgather_object(value if self.rank == 0 else None)[0]

    def broadcast_variables(self, session: Any) -> None:
        """Broadcast the global variables."""
        session.run(self._hvd.broadcast_global_variables(0))

    @contextmanager
    def _side_session(self) -> Iterator[Any]:
        """Yield a session with an empty graph on the CPU, separate from the model's."""
        import tensorflow.compat.v1 as tf

        settings = tf.ConfigProto(device_count={"GPU": 0})
        with tf.Graph().as_default(), tf.Session(config=settings) as session:
            yield session


def init(fp16_allreduce: bool = False, stall_timeout: float = 0) -> Workers:
    """Join the other workers that mpirun, horovodrun or srun started, if any.

    Args:
        fp16_allreduce: as for ``HorovodWorkers``.
        stall_timeout: the same, in seconds.

    Raises:
        UserError: several processes were started and cannot work together: Horovod is missing,
            cannot be loaded, or does not see all of them.
    """
    variable, launched = _launched()
    if launched == 1:
        return SingleWorker("1 worker (single process, no Horovod)")
    if importlib.util.find_spec("horovod") is None:
        raise UserError(
            f"{launched} workers were started but Horovod is not installed, so they could not work "
            "together; run 'make horovod', or start a single process."
        )
    _check_host_name()
    try:
        workers = HorovodWorkers(fp16_allreduce, stall_timeout)
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


def _check_host_name() -> None:
    """Check what Gloo needs: it crashes on a host that has no address.

    Raises:
        UserError: the name of this host does not resolve.
    """
    name = socket.gethostname()
    if os.environ.get("HOROVOD_CONTROLLER") != "gloo":
        return
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        raise UserError(
            f"the name of this host, {name!r}, has no address ({error.strerror}); Gloo needs one: "
            f"add the line '127.0.0.1 {name}' to /etc/hosts, or start the workers with mpirun."
        ) from None


def _launched() -> tuple[str, int]:
    """Return the launcher's variable and its number of processes; 1 if none is set.

    Raises:
        UserError: the value is not a positive integer.
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


def raise_on_all(workers: Workers, action: Callable[[], Result]) -> Result:
    """Return this rank's result of an action, or raise any rank's ``UserError`` on all ranks.

    Otherwise the other ranks would wait for ever for the one that failed.

    Raises:
        UserError: the action raised one on some rank.
    """
    result, problem = None, None
    try:
        result = action()
    except UserError as error:
        problem = (str(error), error.exit_code)
    for rank, found in enumerate(workers.allgather_object(problem)):
        if found is not None:
            message, exit_code = found
            where = f"rank {rank}: " if workers.size > 1 else ""
            raise UserError(where + message, exit_code)
    return cast(Result, result)


def on_rank_0(workers: Workers, action: Callable[[], Result]) -> Result:
    """Run an action on rank 0 and return its result on all ranks.

    Raises:
        UserError: the action raised one; on all ranks.
    """
    result = raise_on_all(workers, lambda: action() if workers.rank == 0 else None)
    return cast(Result, workers.broadcast_object(result))


def check_agreement(workers: Workers, values: Mapping[str, Any]) -> None:
    """Check that all ranks have the same values: of flags and data, or versions.

    Raises:
        UserError: a value differs between ranks; on all ranks.
    """
    everyone = workers.allgather_object(dict(values))
    for rank, theirs in enumerate(everyone):
        for name, value in everyone[0].items():
            if theirs[name] != value:
                raise UserError(
                    f"Workers disagree on {name}: {value!r} on rank 0 and {theirs[name]!r} on rank "
                    f"{rank}; start all of them with the same command, data and environment."
                )


def shard(total: int, rank: int, workers: int) -> slice:
    """Return the rank's range of ``total`` elements; the ranges differ by at most one in length."""
    return slice(rank * total // workers, (rank + 1) * total // workers)
