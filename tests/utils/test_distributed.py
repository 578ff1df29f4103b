"""Who works together: what the launchers' variables say, and what Horovod makes of it."""

import socket
import sys
from types import SimpleNamespace

import pytest

from vae.errors import UserError
from vae.utils import distributed
from vae.utils.distributed import Workers, init

VARIABLES = (
    "HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE",
    "SLURM_STEP_NUM_TASKS",
)  # fmt: skip


@pytest.fixture
def connected(monkeypatch):
    """Joins the workers of a job with these variables; Horovod sees so many processes."""

    def join(environment, seen=1):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)  # it cannot be imported
        if seen:
            joined = SimpleNamespace(size=seen)
            monkeypatch.setattr(distributed, "HorovodWorkers", lambda *_: joined)
        return init()

    return join


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize(
    "value", ["abc", "0", "-2", "2.5", "nan", pytest.param("9" * 5000, id="huge")]
)
def test_a_launchers_variable_that_is_not_a_positive_integer_is_refused(connected, name, value):
    with pytest.raises(UserError, match=rf"^{name}: .* is not a positive integer"):
        connected({name: value})


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, None),
        (dict.fromkeys(VARIABLES, ""), None),
        (dict.fromkeys(VARIABLES, "1"), None),
        # Of a batch script, or of a shell in an allocation.
        ({"SLURM_NTASKS": "2", "SLURM_NPROCS": "2", "SLURM_PROCID": "0"}, None),
        # mpirun -np 1 in an allocation of two hosts, where srun started its daemons.
        ({"OMPI_COMM_WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "2"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "2"}, None),
        *(({name: "3"}, 3) for name in VARIABLES),
        ({"OMPI_COMM_WORLD_SIZE": "8", "SLURM_STEP_NUM_TASKS": "2"}, 8),
        ({"OMPI_COMM_WORLD_SIZE": "2", "SLURM_STEP_NUM_TASKS": "4", "PMI_SIZE": "4"}, 2),
        ({"PMI_SIZE": "", "SLURM_STEP_NUM_TASKS": "2"}, 2),
        # A job of several components, each with its own number of tasks.
        ({"SLURM_STEP_NUM_TASKS": "2"}, 4),
    ],
)
def test_a_launchers_processes_join_through_horovod_and_a_single_one_does_not_need_it(
    connected, environment, size
):
    workers = connected(environment, seen=size or 0)
    assert workers.size == (size or 1)
    assert isinstance(workers, Workers) == (size is None)


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (0, r"^3 workers were started but Horovod cannot be started \(.*make horovod"),
        (1, "HOROVOD_SIZE=3 .* 3 processes .* Horovod sees 1"),
        (2, "HOROVOD_SIZE=3 .* 3 processes .* Horovod sees 2"),
    ],
)
def test_processes_that_horovod_cannot_join_never_work_alone(connected, seen, problem):
    with pytest.raises(UserError, match=problem):
        connected({"HOROVOD_SIZE": "3"}, seen)


def test_a_host_whose_name_has_no_address_is_named_before_gloo_crashes(connected, monkeypatch):
    def resolve(name, port):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "gethostname", lambda: "nowhere")
    problem = r"^the name of this host, 'nowhere', has no address \(Name"
    with pytest.raises(UserError, match=problem):
        connected({"HOROVOD_SIZE": "2", "HOROVOD_CONTROLLER": "gloo"})
