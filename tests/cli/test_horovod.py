"""Several workers: real mpirun and horovodrun jobs, compared with a single process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from helpers import (
    ONE_THREAD,
    ROOT,
    assert_close_weights,
    checkpoints,
    horovodrun,
    log_lines,
    mpirun,
    run_main,
    run_script,
    variables,
)

from vae.models.checkpoints.checkpoint import verify

SMALL = ("--hidden_dim", 32, "--latent_dim", 8, "--batch_size_train", 1001, "--lr", 0.01)

# Two jobs at the same time would fight for the cores.
pytestmark = pytest.mark.xdist_group("mpi")


LAUNCHERS = {
    "mpirun-2": mpirun(2),
    "mpirun-3": mpirun(3),
    "gloo-2": horovodrun(2),
    # Two hosts as far as Horovod can tell: two addresses of this machine, each with one worker.
    "gloo-2-hosts": (
        horovodrun(2)[0], "--gloo", "--network-interfaces", "lo",
        "-np", "2", "-H", "127.0.0.1:1,127.0.0.2:1",
    ),
}  # fmt: skip
LOCAL_SSH = {"PATH": f"{ROOT / 'tests/support/ssh'}:{os.environ['PATH']}"}


def train_flags(data, folder):
    return (
        "--dataset", "synthetic", "--data_dir", data, "--checkpoint_dir", folder / "ckpt",
        "--results_dir", folder / "results", "--log_path", folder / "run.log",
        "--tensorboard_dir", folder / "summaries", *SMALL,
    )  # fmt: skip


@pytest.fixture(
    scope="session",
    params=[
        "mpirun-2",
        "gloo-2",
        pytest.param("mpirun-3", marks=pytest.mark.slow),
        pytest.param("gloo-2-hosts", marks=pytest.mark.slow),
    ],
)
def job(request, demo_data, build_once):
    """The folder of a finished job of 20 steps; its test ran in the same job."""

    def train(folder):
        done = run_script(
            "main.py", "--train", "--test", *train_flags(demo_data, folder), "--epochs", 4,
            launcher=LAUNCHERS[request.param], env=ONE_THREAD | LOCAL_SSH,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return build_once(request.param, train)[0]


@pytest.fixture(scope="session")
def alone(demo_data, build_once):
    """The folder of the same run of one process."""

    def train(folder):
        done = run_main("--train", "--test", *train_flags(demo_data, folder), "--epochs", 4)
        assert done.returncode == 0, done.stderr

    return build_once("alone", train)[0]


def test_any_number_of_workers_trains_the_same_weights(job, alone):
    assert variables(*checkpoints(alone))["global_step"] == 20
    assert_close_weights(job, alone)


@pytest.mark.parametrize(
    ("last_batch", "launcher"),
    [
        (1, "mpirun-2"),
        *(
            pytest.param(users, launcher, marks=pytest.mark.slow)
            for users in (1, 2, 4)
            for launcher in ("mpirun-2", "mpirun-3")
            if (users, launcher) != (1, "mpirun-2")
        ),
    ],
)
def test_a_last_batch_with_few_users_trains_the_same_weights(
    last_batch, launcher, demo_data, tmp_path
):
    train = np.load(demo_data / "synthetic/preprocessed/train_user_ids.npy")
    batch = len(train) - last_batch  # two steps per epoch, of very unequal size
    more = ("--epochs", 3, "--batch_size_train", batch)
    alone, job = tmp_path / "alone", tmp_path / launcher
    done = run_main("--train", *train_flags(demo_data, alone), *more)
    assert done.returncode == 0, done.stderr
    done = run_script(
        "main.py", "--train", *train_flags(demo_data, job), *more,
        launcher=LAUNCHERS[launcher], env=ONE_THREAD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert variables(*checkpoints(alone))["global_step"] == 6
    assert_close_weights(job, alone)


def test_any_number_of_workers_reports_the_same_test_metrics(job, alone):
    found, expected = (
        json.loads((folder / "results/results.json").read_text()) for folder in (job, alone)
    )
    for name in ("test_ndcg@100", "test_recall@20", "test_recall@50", "test_users"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6)


def test_rank_0_alone_writes_the_log_and_the_summaries(job):
    steps = [line["step"] for line in log_lines(job / "run.log") if line["type"] == "LOG"]
    assert steps.count("PARAMETER") == 1
    assert steps.count([1]) == 1
    assert len(list((job / "summaries").iterdir())) == 1


@contextmanager
def endless_job(launcher, data, folder, *more):
    """A job that has written a checkpoint and trains on, and the process ids of its ranks."""
    command = [*LAUNCHERS[launcher], sys.executable, "main.py", "--train"]
    flags = [*map(str, train_flags(data, folder)), *more, "--epochs", "100000"]
    with subprocess.Popen(
        [*command, *flags, "--validation_step", "1"],
        cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as job:  # fmt: skip
        try:
            wait_until(lambda: list((folder / "ckpt").glob("step-*")), job)
            ranks = ranks_of(folder)
            assert len(ranks) == 2
            yield job, ranks
        finally:
            for process in (job.pid, *ranks_of(folder)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def wait_until(condition, job=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert job is None or job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def ranks_of(folder):
    """Process ids of the workers that train into a folder, in ascending order."""
    import psutil  # not above: it comes with Horovod

    start = [sys.executable, "main.py", "--train"]
    processes = [(each.pid, each.info["cmdline"]) for each in psutil.process_iter(["cmdline"])]
    return sorted(
        pid
        for pid, command in processes
        if command and command[:3] == start and str(folder / "ckpt") in command
    )


@pytest.mark.parametrize("launcher", ["mpirun-2", pytest.param("gloo-2", marks=pytest.mark.slow)])
def test_a_killed_rank_ends_the_job_and_leaves_a_usable_checkpoint(launcher, demo_data, tmp_path):
    with endless_job(launcher, demo_data, tmp_path) as (job, ranks):
        os.kill(ranks[-1], signal.SIGKILL)
        job.communicate(timeout=60)
        assert job.returncode != 0
    flags = train_flags(demo_data, tmp_path)
    tested = flags[: flags.index("--tensorboard_dir")]  # which has no effect on a test
    done = run_main("--test", *tested, *SMALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("launcher", ["mpirun-2", pytest.param("gloo-2", marks=pytest.mark.slow)])
def test_workers_whose_launcher_is_killed_end_too(launcher, demo_data, tmp_path):
    with endless_job(launcher, demo_data, tmp_path) as (job, _):
        job.kill()
        wait_until(lambda: not ranks_of(tmp_path), seconds=30)


@pytest.mark.parametrize("launcher", ["mpirun-2", pytest.param("gloo-2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stopped_rank_is_named_and_ends_the_job(launcher, victim, demo_data, tmp_path):
    timeout = ("--stall_timeout", "0.1666667")
    with endless_job(launcher, demo_data, tmp_path, *timeout) as (job, ranks):
        os.kill(ranks[victim], signal.SIGSTOP)
        _, error = job.communicate(timeout=120)  # without the watchdog it would never end
        assert job.returncode == 1
    named = r"main.py: error: rank [01] has been silent for \d+ s, in step \d+; the earlier"
    assert re.search(named, error), error
    assert 'Traceback (most recent call last):\n  File "main.py' not in error
    assert verify(checkpoints(tmp_path)[-1])


@pytest.mark.slow
def test_a_job_that_is_paused_as_a_whole_goes_on(demo_data, tmp_path):
    timeout = ("--stall_timeout", "0.05")
    with endless_job("mpirun-2", demo_data, tmp_path, *timeout) as (job, ranks):
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for rank in ranks:
                os.kill(rank, number)
            time.sleep(5)
        assert job.poll() is None


def test_a_worker_that_does_not_join_ends_the_others(demo_data, tmp_path):
    flags = [*map(str, train_flags(demo_data, tmp_path)), "--stall_timeout", "0.1666667"]
    stranger = [*mpirun(1), "sleep", "60"]
    worker = [":", "-np", "1", sys.executable, "main.py", "--train", *flags]
    done = subprocess.run(
        [*stranger, *worker], cwd=ROOT, capture_output=True, text=True, timeout=45, check=False
    )
    assert done.returncode == 1
    assert "not all workers joined within 10 s; see the messages of the others" in done.stderr


def test_workers_started_differently_all_end_with_the_difference(demo_data, tmp_path):
    flags = [*map(str, train_flags(demo_data, tmp_path))]
    command = [*mpirun(1), sys.executable, "main.py", "--train", *flags, "--epochs", "1"]
    other = ["-np", "1", sys.executable, "main.py", "--train", *flags, "--epochs", "2"]
    done = subprocess.run(
        [*command, ":", *other], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "epochs: 1 on rank 0 and 2 on rank 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_with_another_version_of_a_library_ends_all_with_the_difference(
    demo_data, tmp_path
):
    done = run_script(
        "tests/support/faulty_main.py", "other_numpy", "--train", *train_flags(demo_data, tmp_path),
        launcher=mpirun(2), timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    sentence = f"the version of NumPy: '{np.__version__}' on rank 0 and '1.2.3' on rank 1; start"
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ckpt").exists()


def test_several_workers_without_horovod_are_an_error(demo_data, tmp_path):
    # A Python that cannot find Horovod: a module of that name which is not there to be found.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'horovod' else find(name, *a)\n"
    )
    done = run_script(
        "main.py", "--train", *train_flags(demo_data, tmp_path),
        launcher=mpirun(2), env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "Horovod is not installed" in done.stderr
    assert not (tmp_path / "ckpt").exists()


def test_processes_that_srun_started_and_horovod_cannot_join_all_end_with_the_reason(
    demo_data, tmp_path
):
    flags = (*train_flags(demo_data, tmp_path), "--epochs", 1)
    command = [sys.executable, "main.py", "--train", *map(str, flags)]
    task = {**os.environ, **ONE_THREAD, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    job = [
        subprocess.Popen(
            command, cwd=ROOT, env={**task, "SLURM_PROCID": str(rank)}, stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in job:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "2 processes were started, but Horovod sees 1" in error
        assert "Traceback" not in error
    assert not (tmp_path / "ckpt").exists()
