"""The workers of a run: Horovod ranks, or a single process.

Other modules use ``Workers`` and never import Horovod.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from numpy.typing import NDArray

from vae.errors import UserError
from vae.utils.watchdog import Watchdog

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


class Workers:
    """A rank's view of the job, by itself that of a single process, and the collective operations.

    All ranks of a job must call the collective operations, in the same order. Of its ``size`` ranks
    ``local_size`` are on this host.
    """

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    description = "1 worker (single process, no Horovod)"

    def optimizer(self, optimizer: Any) -> Any:
        """Wrap an optimizer so that it applies the sum of all ranks' gradients."""
        return optimizer

    def allreduce_tensor(self, tensor: Any) -> Any:
        """Return a tensor of the graph that sums a tensor over the ranks at each run."""
        return tensor

    def allgather_tensor(self, tensor: Any) -> Any:
        """Return a tensor of the graph that stacks the ranks' tensors of one shape, in order."""
        return tensor[None]

    def allgather_object(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order, on every rank; anything that pickles."""
        return [value]

    def broadcast_array(self, array: NDArray[Any], root: int) -> NDArray[Any]:
        """Return a rank's array on every rank; those of the others have its shape and type."""
        return array

    def broadcast_variables(self, session: Any, variables: Sequence[Any]) -> None:
        """Overwrite every rank's variables of the session's graph with rank 0's."""

    def with_all_users(self) -> Workers:
        """Return a view of these workers for what each of them does with all users.

        It is a single process, but for the watchdog.
        """
        view = Workers()
        view.report_position = self.report_position  # type: ignore[method-assign]
        return view

    def report_position(self, position: str | None) -> None:
        """Tell the watchdog of a step or a batch, which has to end within ``--stall_timeout``.

        None: what begins may take any time.
        """


class HorovodWorkers(Workers):
    """A job of several ranks that mpirun, horovodrun or srun started.

    Args:
        fp16_allreduce: halve the gradients' traffic by sending them as float16.
        stall_timeout: seconds after which the process ends if another rank does not join, or
            nothing that was reported ends; 0: never.
    """

    def __init__(self, fp16_allreduce: bool, stall_timeout: float) -> None:
        import horovod.tensorflow as hvd

        self._timeout = f"{stall_timeout:.0f} s"
        self._watchdog = Watchdog(stall_timeout)
        self._watchdog.report(
            f"not all workers joined within {self._timeout}; see the messages of the others, and "
            "start all of them with the same command"
        )
        hvd.init()
        self._hvd = hvd
        self._compression = hvd.Compression.fp16 if fp16_allreduce else hvd.Compression.none
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self.description = f"{self.size} workers (Horovod)"
        self.allgather_object(None)  # after which all have joined
        self.report_position(None)

    def report_position(self, position: str | None) -> None:
        """Report it with what to do if it is the last."""
        self._watchdog.report(
            position
            and f"rank {self.rank} on {socket.gethostname()} has waited for {self._timeout} in "
            f"{position}; a rank that says nothing like this is the one that hangs; the earlier "
            "checkpoints are complete: rerun the same command to resume, without the host that "
            "hangs, or with a longer --stall_timeout if a step takes so long"
        )

    def optimizer(self, optimizer: Any) -> Any:
        """Wrap it in Horovod's; a sum, since each rank divides by the global batch's users."""
        return self._hvd.DistributedOptimizer(
            optimizer, op=self._hvd.Sum, compression=self._compression
        )

    def allreduce_tensor(self, tensor: Any) -> Any:
        """Add an allreduce to the graph."""
        return self._hvd.allreduce(tensor, op=self._hvd.Sum)

    def allgather_tensor(self, tensor: Any) -> Any:
        """Add an allgather to the graph."""
        return self._hvd.allgather(tensor[None])

    def allgather_object(self, value: Any) -> list[Any]:
        """Pickle, allgather and unpickle, in a session on the CPU separate from the model's."""
        with cpu_session() as session:
            # By default Horovod names an operation after the type of the value, and ranks with
            # values of different types would wait for each other forever.
            return list(self._hvd.allgather_object(value, session=session, name="allgather"))

    def broadcast_array(self, array: NDArray[Any], root: int) -> NDArray[Any]:
        """Broadcast it in a session like that of :meth:`allgather_object`."""
        import tensorflow.compat.v1 as tf

        with cpu_session() as session:
            value = tf.placeholder(array.dtype, array.shape)
            return cast(
                "NDArray[Any]",
                session.run(self._hvd.broadcast(value, root, name="array"), {value: array}),
            )

    def broadcast_variables(self, session: Any, variables: Sequence[Any]) -> None:
        """Broadcast the variables."""
        session.run(self._hvd.broadcast_variables(variables, 0))


@contextmanager
def cpu_session() -> Iterator[Any]:
    """Yield a session of a new graph on the CPU."""
    import tensorflow.compat.v1 as tf

    settings = tf.ConfigProto(device_count={"GPU": 0})
    with tf.Graph().as_default(), tf.Session(config=settings) as session:
        yield session


def init(fp16_allreduce: bool = False, stall_timeout: float = 0) -> Workers:
    """Join the other workers that mpirun, horovodrun or srun started, if any.

    The arguments are those of ``HorovodWorkers``.

    Raises:
        UserError: several processes were started and cannot work together: Horovod is missing,
            cannot be loaded, or does not see all of them.
    """
    variable, launched = _launched()
    if launched == 1:
        return Workers()
    _check_host_name()
    try:
        workers = HorovodWorkers(fp16_allreduce, stall_timeout)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{launched} workers were started but Horovod cannot be started ({error}); run 'make "
            "horovod' to build it, or start a single process."
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
    """Return the launcher's variable and its number of processes; 1 if none is set."""
    name = next((name for name in _LAUNCHER_SIZES if os.environ.get(name)), "")
    value = os.environ.get(name, "1")
    if not re.fullmatch("0*[1-9][0-9]{0,8}", value):
        raise UserError(
            f"{name}: {value:.20} is not a positive integer; unset it for a single process, or "
            "start the workers with mpirun, horovodrun or srun, which set it."
        )
    return name, int(value)


def _check_host_name() -> None:
    """Check that the name of this host resolves, without which Gloo crashes."""
    name = socket.gethostname()
    try:
        if os.environ.get("HOROVOD_CONTROLLER") == "gloo":
            socket.getaddrinfo(name, None)
    except OSError as error:
        raise UserError(
            f"the name of this host, {name!r}, has no address ({error.strerror}); Gloo needs one: "
            f"add the line '127.0.0.1 {name}' to /etc/hosts, or start the workers with mpirun."
        ) from None


def raise_on_all(workers: Workers, action: Callable[[], Result]) -> Result:
    """Return this rank's result of an action, or raise any rank's ``UserError`` on all ranks.

    Otherwise the other ranks would wait forever for the one that failed.
    """
    result, problem = None, None
    try:
        result = action()
    except UserError as error:
        problem = error
    for rank, found in enumerate(workers.allgather_object(problem)):
        if found is not None:
            where = f"rank {rank}: " if workers.size > 1 else ""
            raise UserError(f"{where}{found}", found.exit_code)
    return cast(Result, result)


def on_rank_0(workers: Workers, action: Callable[[], Result]) -> Result:
    """Return the result of an action of rank 0 on all ranks, or raise its ``UserError`` on all."""
    result = raise_on_all(workers, lambda: action() if workers.rank == 0 else None)
    # Of Horovod's two broadcasts of objects one needs an API that TensorFlow 2 lacks, and the other
    # waited forever in a session (0.28.1).
    return cast(Result, workers.allgather_object(result)[0])


def check_agreement(workers: Workers, values: Mapping[str, Any]) -> None:
    """Check that all ranks have the same values: of flags and data, or versions.

    Raises:
        UserError: a value differs between ranks; on all ranks.
    """
    first, *others = workers.allgather_object(dict(values))
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other[name] != value:
                raise UserError(
                    f"Workers disagree on {name}: {value!r} on rank 0 and {other[name]!r} on rank "
                    f"{rank}; start all of them with the same command, data and environment."
                )


def shard(total: int, rank: int, workers: int) -> slice:
    """Return the rank's range of ``total`` elements; the ranges differ by at most one in length."""
    return slice(rank * total // workers, (rank + 1) * total // workers)
