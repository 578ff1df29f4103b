"""Several workers: real jobs of mpirun and horovodrun, compared with a single process."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import pytest
from helpers import (
    ONE_THREAD,
    ROOT,
    Forked,
    assert_close_weights,
    assert_same_run,
    checkpoints,
    copy,
    error_of,
    flags,
    horovodrun,
    log_lines,
    losses,
    mpirun,
    newest_step,
    output_of,
    run_main,
    run_prepare,
    run_script,
    variables,
    wait_for,
    write,
)

from vae.load.store import open_dataset
from vae.models.checkpoints.checkpoint import verify

EPOCHS, STEPS = 4, 5
TRAIN = (
    "--train", "--hidden_dim", 32, "--latent_dim", 8, "--lr", 0.01, "--validation_step", 2,
    "--batch_size_train", 1238,  # the last batch of an epoch has one user, so some workers none
)  # fmt: skip
RUN = (*TRAIN, "--epochs", EPOCHS)
ENDLESS = ("--epochs", 10**6)
EACH_STEP = ("--save_every", "0.0000001m", "--keep_checkpoints", EPOCHS * STEPS)
MODELS = {
    "multvae": (),
    "recvae": ("--model", "recvae", "--blend", "ease", "--baselines", "popularity,ease,itemknn"),
}
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
FAULTY_MAIN = "tests/support/faulty_main.py"

# Two jobs at the same time would fight for the cores.
pytestmark = pytest.mark.xdist_group("mpi")


def run_job(*arguments, script="main.py", launcher="mpirun-2"):
    """Runs a job to its end, with a core for each worker."""
    environment = ONE_THREAD | LOCAL_SSH
    return run_script(script, *arguments, launcher=LAUNCHERS[launcher], env=environment)


@pytest.fixture(scope="session")
def jobs(demo_data, build_once):
    """Gives the folder of a finished job; its test ran in the same job."""

    def finished(launcher, model, parallel="users"):
        def train(folder):
            outputs = ("--results_dir", folder / "results", "--tensorboard_dir", folder / "board")
            more = (*MODELS[model], "--parallel", parallel, "--test", *outputs)
            output_of(run_job(*flags(demo_data, folder, *RUN, *more), launcher=launcher))

        return build_once(f"job-{launcher}-{model}-{parallel}", train)[0]

    return finished


@pytest.fixture(scope="session")
def alone(demo_data, build_once):
    """Gives the folder of the same run of one process, with a checkpoint of each step."""

    def finished(model):
        def train(folder):
            more = ("--test", "--results_dir", folder / "results", *EACH_STEP)
            output_of(run_main(*flags(demo_data, folder, *RUN, *MODELS[model], *more)))

        return build_once(f"alone-{model}", train)[0]

    return finished


def results(folder):
    """What the test reported, without times."""
    values = json.loads((folder / "results/results.json").read_text())
    kinds = ("final_", "test_", "unblended_", "popularity_", "ease_", "itemknn_", "blend_")
    return {name: v for name, v in values.items() if name.startswith(kinds) and "time" not in name}


@pytest.mark.parametrize(
    ("launcher", "model", "parallel"),
    [
        ("mpirun-2", "recvae", "users"),
        ("gloo-2", "multvae", "users"),
        ("mpirun-2", "multvae", "items"),
        pytest.param("mpirun-3", "recvae", "items", marks=pytest.mark.slow),
        pytest.param("mpirun-3", "recvae", "users", marks=pytest.mark.slow),
        pytest.param("gloo-2-hosts", "multvae", "users", marks=pytest.mark.slow),
        pytest.param("gloo-2", "multvae", "items", marks=pytest.mark.slow),
        pytest.param("mpirun-2", "recvae", "items", marks=pytest.mark.slow),
    ],
)
def test_any_number_of_workers_gives_the_same_weights_and_results(
    launcher, model, parallel, jobs, alone
):
    job, single = jobs(launcher, model, parallel), alone(model)
    assert variables(checkpoints(single)[-1])["global_step"] == EPOCHS * STEPS
    assert_close_weights(job, single)
    found = results(job)
    assert {"test_ndcg@100", "test_recall@20", "test_recall@50", "test_users"} <= set(found)
    if model == "recvae":
        assert {"ease_lambda", "blend_model_weight", "test_minus_unblended_ndcg@100"} <= set(found)
        assert {"test_minus_ease_ndcg@100_se", "itemknn_ndcg@100"} <= set(found)
    assert found == pytest.approx(results(single), abs=1e-6)


def test_items_that_are_divided_end_as_those_of_one_worker_whatever_their_number(tmp_path):
    rng = np.random.default_rng(3)
    # 27 items are four groups of eight: the third of three workers has two, with padded items. The
    # last batch has one user, and some users have items of one worker alone.
    pairs = {(user, 10 * (user % 3) + item) for user in range(61) for item in rng.integers(0, 9, 7)}
    rows = "".join(f"u{user},i{item},5\n" for user, item in sorted(pairs))
    ratings = write(tmp_path / "ratings.csv", f"userId,movieId,rating\n{rows}")
    output_of(
        run_prepare(
            "--dataset", "odd", "--data_dir", tmp_path, "--ratings", ratings, "--heldout_users", 4
        )
    )
    users, items = open_dataset(tmp_path, "odd").train.shape
    assert (items, users % 2) == (27, 1)
    more = (
        "--train", "--hidden_dim", 5, "--latent_dim", 3, "--validation_step", 1, "--epochs", 3,
        "--lam", 0.01, "--lr", 0.01, "--batch_size_train", users - 1, "--model", "recvae",
    )  # fmt: skip
    for name, run in (("one", run_main), ("three", partial(run_job, launcher="mpirun-3"))):
        outputs = flags(tmp_path, tmp_path / name, *more, "--parallel", "items", dataset="odd")
        output_of(run(*outputs))
    assert_close_weights(tmp_path / "three", tmp_path / "one")
    assert losses(tmp_path / "three") == pytest.approx(losses(tmp_path / "one"))


def test_rank_0_alone_writes_the_log_and_the_summaries(jobs):
    job = jobs("mpirun-2", "recvae")
    steps = [line["step"] for line in log_lines(job / "run.log") if line["type"] == "LOG"]
    assert steps.count("PARAMETER") == 1
    assert steps.count([1]) == 1
    assert len(list((job / "board").iterdir())) == 1


def test_a_finished_job_run_again_ends_at_once_and_tests_the_same(jobs, demo_data, tmp_path):
    job = jobs("mpirun-2", "recvae")
    copy(job, tmp_path)
    more = ("--test", *MODELS["recvae"][:-2], "--results_dir", tmp_path / "results")
    out = output_of(run_job(*flags(demo_data, tmp_path, *RUN, *more)))
    assert f"Nothing to do: {EPOCHS} epochs completed" in out
    found = results(tmp_path)
    assert "unblended_ndcg@100" in found
    assert found == pytest.approx({name: results(job)[name] for name in found}, abs=1e-6)


def stop_one_rank(fault, data, folder, *more):
    """A job of which one rank alone receives SIGTERM."""
    done = run_job(fault, *flags(data, folder, *RUN, *more), script=FAULTY_MAIN)
    error = error_of(done, code=143)
    assert error.count(f"Stopped by SIGTERM at step {newest_step(folder)}") == 2


@pytest.fixture(scope="session")
def interrupted(demo_data, build_once):
    """The folder of a job that a signal to one rank stopped within an epoch."""

    def train(folder):
        stop_one_rank("signal_in_step", demo_data, folder)

    folder, _ = build_once("interrupted", train)
    assert newest_step(folder) in (7, 8)
    return folder


def test_a_signal_to_one_rank_stops_all_and_they_go_on_bit_for_bit(
    interrupted, jobs, demo_data, tmp_path
):
    (tmp_path / "run.log").write_bytes((interrupted / "run.log").read_bytes())
    copy(interrupted, tmp_path)
    output_of(run_job(*flags(demo_data, tmp_path, *RUN)))
    assert_same_run(tmp_path, jobs("gloo-2", "multvae"))


@pytest.mark.slow
def test_a_signal_to_one_rank_in_a_validation_costs_nothing_either(jobs, demo_data, tmp_path):
    stop_one_rank("signal_in_validation", demo_data, tmp_path, "--batch_size_validation", 200)
    assert newest_step(tmp_path) == 2 * STEPS
    output_of(run_job(*flags(demo_data, tmp_path, *RUN)))
    assert_same_run(tmp_path, jobs("gloo-2", "multvae"))


def test_one_worker_goes_on_with_what_two_began(interrupted, alone, demo_data, tmp_path):
    folder = copy(interrupted, tmp_path)
    output_of(Forked(flags(demo_data, folder, *RUN)).wait())
    assert_close_weights(folder, alone("multvae"))


def test_items_divided_otherwise_go_on_with_what_others_began(alone, demo_data, tmp_path):
    folder = copy(alone("recvae"), tmp_path, keep=3)
    recvae = MODELS["recvae"][:2]
    for epochs, workers in ((2, 2), (3, 3)):
        more = (*TRAIN, *recvae, "--epochs", epochs, "--parallel", "items")
        output_of(run_job(*flags(demo_data, folder, *more), launcher=f"mpirun-{workers}"))
    output_of(Forked(flags(demo_data, folder, *RUN, *recvae)).wait())
    assert newest_step(folder) == EPOCHS * STEPS
    assert_close_weights(folder, alone("recvae"))


def test_a_job_of_divided_items_that_stopped_or_could_not_write_goes_on_bit_for_bit(
    jobs, demo_data, tmp_path
):
    divided = ("--parallel", "items")
    stop_one_rank("signal_in_step", demo_data, tmp_path, *divided)
    arguments = flags(demo_data, tmp_path, *RUN, *divided)
    error = error_of(run_job("full_disk", *arguments, script=FAULTY_MAIN), code=1)
    assert error.count("No space left on device); earlier checkpoints are intact") == 2
    assert newest_step(tmp_path) in (7, 8)
    output_of(run_job(*arguments))
    assert_same_run(tmp_path, jobs("mpirun-2", "multvae", "items"))


def test_two_workers_go_on_with_what_one_began(alone, demo_data, tmp_path):
    folder = copy(alone("multvae"), tmp_path, keep=8)
    out = output_of(run_job(*flags(demo_data, folder, *RUN)))
    assert "at step 8 (1 epoch completed, batch 3 of the next)" in out
    assert newest_step(folder) == EPOCHS * STEPS
    assert_close_weights(folder, alone("multvae"))


def command(launcher, data, folder, *more):
    """The command line of a job that saves after each epoch."""
    arguments = flags(data, folder, *TRAIN, "--save_every", "1e", *more)
    return [*LAUNCHERS[launcher], sys.executable, "main.py", *arguments]


@contextmanager
def running(command, folder, saved=0):
    """A job that has written a checkpoint of a later step, and the process ids of its ranks."""
    with subprocess.Popen(
        command, cwd=ROOT, text=True, env={**os.environ, **ONE_THREAD},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as job:  # fmt: skip
        try:
            wait_for(lambda: newest_step(folder) > saved, job)
            ranks = ranks_of(folder)
            assert len(ranks) == 2
            yield job, ranks
        finally:
            for process in (job.pid, *ranks_of(folder)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


def ranks_of(folder):
    """Process ids of the workers that train into a folder, in ascending order."""
    import psutil  # not above: it comes with Horovod

    processes = [(each.pid, each.info["cmdline"]) for each in psutil.process_iter(["cmdline"])]
    return sorted(
        pid
        for pid, command in processes
        if command
        and command[:2] == [sys.executable, "main.py"]
        and str(folder / "ckpt") in command
    )


@pytest.mark.parametrize(
    ("launcher", "victim", "number", "parallel"),
    [
        ("mpirun-2", "rank", signal.SIGKILL, "items"),
        ("mpirun-2", "launcher", signal.SIGKILL, "users"),
        pytest.param("mpirun-2", "rank", signal.SIGKILL, "users", marks=pytest.mark.slow),
        pytest.param("gloo-2", "rank", signal.SIGKILL, "users", marks=pytest.mark.slow),
        pytest.param("gloo-2", "launcher", signal.SIGKILL, "users", marks=pytest.mark.slow),
        pytest.param("mpirun-2", "launcher", signal.SIGTERM, "users", marks=pytest.mark.slow),
    ],
)
def test_a_killed_rank_or_launcher_ends_the_job_and_leaves_a_usable_checkpoint(
    launcher, victim, number, parallel, demo_data, tmp_path
):
    endless = command(launcher, demo_data, tmp_path, *ENDLESS, "--parallel", parallel)
    with running(endless, tmp_path) as (job, ranks):
        os.kill(ranks[-1] if victim == "rank" else job.pid, number)
        wait_for(lambda: not ranks_of(tmp_path), seconds=30)
        job.communicate(timeout=60)
        assert job.returncode != 0
    output_of(run_main("--test", *flags(demo_data, tmp_path)))


@pytest.mark.parametrize("launcher", ["mpirun-2", pytest.param("gloo-2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stopped_rank_ends_the_job_and_the_others_say_where_they_waited(
    launcher, victim, demo_data, tmp_path
):
    stalling = command(launcher, demo_data, tmp_path, *ENDLESS, "--stall_timeout", "0.1666667")
    with running(stalling, tmp_path) as (job, ranks):
        os.kill(ranks[victim], signal.SIGSTOP)
        _, error = job.communicate(timeout=120)  # without the watchdog it would never end
        assert job.returncode == 1
    waited = r"main.py: error: rank ([01]) on \S+ has waited for 10 s in (step|the save|the eval)"
    assert len(re.findall(waited, error)) == 1, error
    assert 'Traceback (most recent call last):\n  File "main.py' not in error
    assert verify(checkpoints(tmp_path)[-1])


@pytest.mark.slow
def test_a_job_that_is_paused_as_a_whole_goes_on(demo_data, tmp_path):
    paused = command("mpirun-2", demo_data, tmp_path, *ENDLESS, "--stall_timeout", "0.05")
    with running(paused, tmp_path) as (job, ranks):
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for rank in ranks:
                os.kill(rank, number)
            time.sleep(5)
        assert job.poll() is None


def test_a_worker_that_does_not_join_ends_the_others(demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, *TRAIN, "--stall_timeout", "0.05")
    other = (*mpirun(1), "sleep", "100", ":", "-np", "1")
    error = error_of(run_script("main.py", *arguments, launcher=other, timeout=90), code=1)
    assert "not all workers joined within 3 s; see the messages of the others" in error


def test_workers_started_differently_all_end_with_the_difference(demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, *TRAIN, "--epochs")
    other = (*mpirun(1), sys.executable, "main.py", *arguments, "1", ":", "-np", "1")
    error = error_of(run_script("main.py", *arguments, 2, launcher=other))
    assert "epochs: 1 on rank 0 and 2 on rank 1" in error
    assert not (tmp_path / "ckpt").exists()


def test_processes_that_srun_started_and_horovod_cannot_join_end_with_the_reason(
    demo_data, tmp_path
):
    task = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    done = run_script("main.py", *flags(demo_data, tmp_path, *RUN), env=ONE_THREAD | task)
    assert "2 processes were started, but Horovod sees 1" in error_of(done)
    assert not (tmp_path / "ckpt").exists()


def test_what_rank_0_alone_finds_wrong_ends_all_ranks(alone, demo_data, tmp_path):
    folder = copy(alone("multvae"), tmp_path)
    done = run_job(*flags(demo_data, folder, *RUN, "--resume", "never"))
    assert "rank 0: --resume never" in error_of(done)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_the_script_for_schedulers_passes_a_signal_on(number, demo_data, tmp_path):
    document = (ROOT / "docs/many-workers.md").read_text()
    (script,) = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    endless = shlex.join(command("mpirun-2", demo_data, tmp_path, *ENDLESS))
    script, replaced = re.subn(r"^mpirun.*(?= &$)", lambda _: endless, script, flags=re.MULTILINE)
    assert replaced == 1
    with running(["bash", "-c", script], tmp_path) as (job, _):
        job.send_signal(number)
        _, error = job.communicate(timeout=120)
    assert job.returncode == 138, error
    assert error.count(f"Stopped by SIGUSR1 at step {newest_step(tmp_path)}") == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sigusr1_to_mpirun_at_random_moments_costs_nothing(demo_data, tmp_path):
    signals = int(os.environ.get("VAE_CF_SIGNALS", "4"))  # each takes half a minute
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    epochs = ("--epochs", 40 * signals)
    moments = random.Random(5)
    for _ in range(signals):
        saved = newest_step(stopped)
        job = command("mpirun-2", demo_data, stopped, *epochs)
        with running(job, stopped, saved) as (job, _):
            time.sleep(moments.uniform(0, 1))
            saved = newest_step(stopped)
            job.send_signal(signal.SIGUSR1)
            _, error = job.communicate(timeout=120)
        assert job.returncode == 138, error
        assert error.count(f"Stopped by SIGUSR1 at step {newest_step(stopped)}") == 2
        assert newest_step(stopped) >= saved
    for folder in (whole, stopped):
        output_of(run_job(*flags(demo_data, folder, *TRAIN, *epochs)))
    assert_same_run(stopped, whole)


def test_an_error_on_one_rank_ends_the_others(demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, *RUN, "--save_every", "1e")
    done = run_job("crash", *arguments, script=FAULTY_MAIN)
    assert done.returncode == 1
    assert "RuntimeError: a mistake of the program" in done.stderr
    assert done.stderr.count("Traceback") == 1, "the sound rank has nothing to trace"
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005"]


@pytest.mark.parametrize(
    ("more", "saved"),
    [
        (("--save_every", "1e"), ["step-00000005"]),
        (("--save_every", "1e", "--parallel", "items"), ["step-00000005"]),
        pytest.param(("--check_replicas", 2), [], marks=pytest.mark.slow),
    ],
)
def test_a_flipped_bit_of_one_rank_is_named_and_never_saved(more, saved, demo_data, tmp_path):
    done = run_job("flip_bit", *flags(demo_data, tmp_path, *RUN, *more), script=FAULTY_MAIN)
    sentence = "The weights of rank 1 differ from those of rank 0 at step 10 (2 epochs completed)"
    assert error_of(done, code=1).count(sentence) == 2
    assert [path.name for path in checkpoints(tmp_path)] == saved
    if "--check_replicas" in more:  # without the comparison nothing is found
        without = flags(demo_data, tmp_path, *RUN, "--check_replicas", 0)
        output_of(run_job("flip_bit", *without, script=FAULTY_MAIN))


@pytest.mark.slow
def test_gradients_that_overflow_in_every_step_end_all_ranks(demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, *TRAIN, "--epochs", 40, "--amp")
    done = run_job("overflow", *arguments, script=FAULTY_MAIN)
    sentence = (
        "Training diverged: non-finite gradients in 64 consecutive steps before step 65, epoch 13 "
        "(the loss scale of --amp is 1); last finite loss: 1"
    )
    assert error_of(done, code=1).count(sentence) == 2


def test_a_loss_that_is_not_finite_ends_all_ranks_and_spares_the_checkpoints(
    alone, demo_data, tmp_path
):
    folder = copy(alone("multvae"), tmp_path)
    before = [verify(path) for path in checkpoints(folder)]
    arguments = flags(demo_data, folder, *TRAIN, "--epochs", 9, "--save_every", "1e")
    error = error_of(run_job(*arguments, "--lr", "1e30"), code=1)
    for part in (
        "Training diverged: the loss of ", "step 2", "epoch 5", "last finite loss: 1",
        "lower --lr than 1e+30",
    ):  # fmt: skip
        assert part in error
    assert [verify(path) for path in checkpoints(folder)] == before
