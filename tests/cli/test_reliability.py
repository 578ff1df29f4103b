"""Whatever happens to a run, its last good checkpoint goes on: docs/reliability.md is the table."""

import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import (
    ONE_THREAD,
    ROOT,
    Forked,
    assert_close_weights,
    checkpoints,
    log_lines,
    mpirun,
    run_main,
    run_prepare,
    run_script,
    variables,
)

from vae.config import parse_flags
from vae.errors import UserError
from vae.models.checkpoints.checkpoint import verify
from vae.models.training import train
from vae.utils.atomic import lock_folder

EPOCHS = 40
WHOLE = ("--epochs", EPOCHS)
STEPS = 5  # of an epoch
QUICK = (
    "--hidden_dim", 16, "--latent_dim", 4, "--batch_size_train", 1001, "--lr", 0.01,
    "--validation_step", 3,
)  # fmt: skip
SAVE_EACH_STEP = ("--save_every", "0.0000001m", "--keep_checkpoints", 3)
MPI = pytest.mark.xdist_group("mpi")
FAULTY_MAIN = "tests/support/faulty_main.py"


def flags(data, folder, *more):
    return [
        str(flag)
        for flag in (
            "--train", "--dataset", "synthetic", "--data_dir", data, *QUICK,
            "--checkpoint_dir", folder / "ckpt", "--log_path", folder / "run.log", *more,
        )
    ]  # fmt: skip


def newest_step(folder):
    return max((int(path.name[5:]) for path in checkpoints(folder)), default=0)


def losses(folder):
    """The loss of each epoch; of one that was trained twice, the last."""
    return {
        line["step"][0]: line["data"]["loss"]
        for line in log_lines(folder / "run.log")
        if line["type"] == "LOG" and "loss" in line["data"]
    }


def wait_for(condition, job, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert job.poll() is None, "the job ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(launcher, arguments):
    return subprocess.Popen(
        [*launcher, sys.executable, "main.py", *arguments],
        cwd=ROOT, env={**os.environ, **ONE_THREAD}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def assert_same_weights(folder, reference):
    final, expected = variables(checkpoints(folder)[-1]), variables(checkpoints(reference)[-1])
    assert set(final) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(final[name], value, err_msg=name)


def assert_same_run(folder, reference):
    assert_same_weights(folder, reference)
    assert losses(folder) == losses(reference)


def copy(reference, folder, keep=None):
    """The checkpoints of a run in a folder of their own; those of steps up to ``keep``."""
    shutil.copytree(reference / "ckpt", folder / "ckpt")
    for checkpoint in checkpoints(folder):
        if keep is not None and int(checkpoint.name[5:]) > keep:
            shutil.rmtree(checkpoint)
    return folder


@pytest.fixture(scope="session")
def reference(demo_data, build_once):
    """The folder of a run that nobody interrupted."""

    def train(folder):
        done = Forked(flags(demo_data, folder, *WHOLE)).wait()
        assert done.returncode == 0, done.stderr

    return build_once("uninterrupted", train)[0]


@pytest.fixture(scope="session")
def short(demo_data, build_once):
    """The folder of a finished run of two epochs, with a checkpoint of each of its last steps."""

    def train(folder):
        done = run_main(*flags(demo_data, folder, "--epochs", 2, *SAVE_EACH_STEP))
        assert done.returncode == 0, done.stderr

    folder, _ = build_once("short", train)
    assert [int(path.name[5:]) for path in checkpoints(folder)] == [8, 9, 10]
    return folder


def being_written(folder):
    """Checkpoints that are not whole yet."""
    return list((folder / "ckpt").glob(".writing-*"))


def end_after_kills(kills, demo_data, folder):
    """Start a run again after each of so many kills, then let it end; count cut checkpoints."""
    arguments = flags(demo_data, folder, *WHOLE, *SAVE_EACH_STEP)
    moments = random.Random(7)
    drafts = 0
    for kill in range(kills):
        target = newest_step(folder) + moments.randrange(12)
        run = Forked(arguments)
        while run.poll() is None and newest_step(folder) < target:
            time.sleep(0.001)
        if kill % 2:  # somewhere in a step
            time.sleep(moments.uniform(0, 0.03))
        else:  # in a checkpoint
            while run.poll() is None and not being_written(folder):
                time.sleep(0.0002)
        run.process.kill()
        assert run.wait().returncode == -signal.SIGKILL, "it must not end by itself"
        drafts += len(being_written(folder))
    assert newest_step(folder) > 2 * kills
    done = Forked(arguments).wait()
    assert done.returncode == 0, done.stderr
    assert not list((folder / "ckpt").glob(".*")), "what killed runs left is still there"
    return drafts


def test_killed_three_times_a_run_ends_like_the_uninterrupted_one(reference, demo_data, tmp_path):
    end_after_kills(3, demo_data, tmp_path)
    assert_same_run(tmp_path, reference)


@pytest.mark.slow
def test_killed_twenty_times_a_run_ends_like_the_uninterrupted_one(reference, demo_data, tmp_path):
    drafts = end_after_kills(20, demo_data, tmp_path)
    assert drafts > 0, "no kill hit a checkpoint while it was written"
    assert_same_run(tmp_path, reference)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
        (signal.SIGUSR1, 138),
        (signal.SIGUSR2, 140),
        (signal.SIGXCPU, 152),
    ],
)
def test_a_signal_stops_after_the_step_and_the_run_goes_on_from_there(
    number, code, reference, demo_data, tmp_path
):
    arguments = flags(demo_data, tmp_path, *WHOLE)
    run = Forked(arguments)
    # The first validation's checkpoint is of step 15; then the next one may come.
    wait_for(lambda: newest_step(tmp_path) >= 3 * STEPS, run)
    os.kill(run.process.pid, number)
    done = run.wait(timeout=120)
    assert done.returncode == code
    assert f"Stopped by {number.name} at step {newest_step(tmp_path)}" in done.stderr
    assert "Traceback" not in done.stderr
    stopped = checkpoints(tmp_path)[-1]
    done = Forked([*arguments, "--resume", "must"]).wait()
    assert done.returncode == 0, done.stderr
    assert f"Resuming {stopped} at step {int(stopped.name[5:])} (" in done.stdout
    assert_same_run(tmp_path, reference)


def table(folder):
    """The rows of epochs.csv, without times."""
    epochs = pd.read_csv(folder / "results/epochs.csv", float_precision="round_trip")
    return epochs.drop(columns=["train_epoch_time", "train_throughput", "valid_time"])


@pytest.fixture(scope="session")
def validated(demo_data, build_once):
    """The folder of a run of several validations, with its results, that nobody interrupted."""

    def train(folder):
        more = ("--epochs", 6, "--results_dir", folder / "results", "--test")
        done = run_main(*flags(demo_data, folder, *more))
        assert done.returncode == 0, done.stderr

    return build_once("validated", train)[0]


def test_signals_in_all_validations_cost_no_number_of_epochs_csv(
    validated, demo_data, tmp_path, monkeypatch
):
    arguments = flags(demo_data, tmp_path, "--epochs", 6, "--results_dir", tmp_path / "results")
    evaluate, calls = train.evaluate, itertools.count()

    def interrupted_each_other_time(*args, **kwargs):
        if next(calls) % 2 == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # until the thread that waits for signals has read it
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(train, "evaluate", interrupted_each_other_time)
    for validation in (1, 2):
        done = run_main(*arguments)
        assert done.returncode == 143, done.stderr
        assert newest_step(tmp_path) == 3 * STEPS * validation
    done = run_main(*arguments)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, validated)
    pd.testing.assert_frame_equal(table(tmp_path), table(validated), check_exact=True)


def test_a_run_with_nothing_left_to_train_reports_what_the_training_did(
    validated, demo_data, tmp_path
):
    folder = copy(validated, tmp_path)
    results = ("--epochs", 6, "--results_dir", tmp_path / "results", "--test")
    done = run_main(*flags(demo_data, folder, *results))
    assert done.returncode == 0, done.stderr
    found, expected = (
        json.loads((run / "results/results.json").read_text()) for run in (tmp_path, validated)
    )
    assert {"final_ndcg@100_se", "best_ndcg@100", "mean_inference_throughput"} <= set(expected)
    assert found | {"test_time": 0} == expected | {"test_time": 0}


@pytest.mark.parametrize("name", ["step-00000010", "the best"])
def test_a_checkpoint_by_itself_can_be_read_and_not_trained_into(name, short, demo_data, tmp_path):
    path = tmp_path / name
    shutil.copytree(checkpoints(short)[-1], path)
    before = sorted(path.iterdir())
    arguments = flags(demo_data, tmp_path, "--checkpoint_dir", path)
    for which in ("best", "latest"):
        done = run_main("--test", *arguments[1:], "--checkpoint", which)
        assert done.returncode == 0, done.stderr
        assert f"Loaded checkpoint {path}: step 10" in done.stdout
    for more in ((), ("--restart",)):
        done = run_main(*arguments, *more)
        assert done.returncode == 2
        assert f"--checkpoint_dir {path}: is itself a checkpoint; pass the folder" in done.stderr
    assert sorted(path.iterdir()) == before


def test_gnu_timeout_which_sends_two_signals_at_once_does_not_cost_the_checkpoint(
    short, demo_data, tmp_path
):
    folder = copy(short, tmp_path)
    arguments = flags(demo_data, folder, "--epochs", 10**6)
    done = run_script("main.py", *arguments, launcher=("timeout", "15"))
    assert done.returncode == 124, done.stderr
    assert f"Stopped by SIGTERM at step {newest_step(folder)}" in done.stderr
    assert newest_step(folder) > 10


@pytest.fixture(scope="session")
def interrupted(demo_data, build_once):
    """The folder of a run of two workers that SIGTERM ended, and its exit code."""

    def train(folder):
        with start(mpirun(2), flags(demo_data, folder, *WHOLE, *SAVE_EACH_STEP)) as job:
            wait_for(lambda: newest_step(folder) >= 7, job)
            job.send_signal(signal.SIGTERM)
            try:
                _, stderr = job.communicate(timeout=120)
            finally:
                job.kill()
        assert "Traceback" not in stderr
        return job.returncode

    return build_once("interrupted", train)


@pytest.fixture(scope="session")
def reference_of_two(demo_data, build_once):
    """The folder of a run of two workers that nobody interrupted."""

    def train(folder):
        arguments = flags(demo_data, folder, *WHOLE)
        done = run_script("main.py", *arguments, launcher=mpirun(2), env=ONE_THREAD)
        assert done.returncode == 0, done.stderr

    return build_once("uninterrupted-two", train)[0]


@MPI
def test_two_workers_that_sigterm_ended_go_on_bit_for_bit(
    interrupted, reference_of_two, demo_data, tmp_path
):
    folder, code = interrupted
    assert code != 0
    assert 7 <= newest_step(folder) < EPOCHS * STEPS
    copy(folder, tmp_path)
    arguments = flags(demo_data, tmp_path, *WHOLE)
    done = run_script("main.py", *arguments, launcher=mpirun(2), env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert_same_weights(tmp_path, reference_of_two)
    # The finished job, run again: it ends at once on both ranks.
    done = run_script("main.py", *arguments, launcher=mpirun(2), env=ONE_THREAD, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"Nothing to do: {EPOCHS} epochs completed" in done.stdout


def end_after_signals_to_mpirun(signals, demo_data, folder):
    """Start a job of two again after each of so many signals to its launcher, then let it end."""
    arguments = flags(demo_data, folder, "--epochs", 40 * signals)
    moments = random.Random(5)
    for _ in range(signals):
        target = newest_step(folder) + 1
        with start(mpirun(2), [*arguments, "--save_every", "1e"]) as job:
            wait_for(lambda target=target: newest_step(folder) >= target, job)
            time.sleep(moments.uniform(0, 1))
            saved = newest_step(folder)
            job.send_signal(signal.SIGUSR1)
            _, error = job.communicate(timeout=120)
        assert job.returncode == 138, error
        assert error.count(f"Stopped by SIGUSR1 at step {newest_step(folder)}") == 2
        assert newest_step(folder) >= saved
    done = run_script("main.py", *arguments, launcher=mpirun(2), env=ONE_THREAD)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def compare_with_uninterrupted(demo_data, tmp_path):
    """Compares a job of two that signals ended with one that nobody interrupted."""

    def compare(signals):
        (tmp_path / "whole").mkdir()
        arguments = flags(demo_data, tmp_path / "whole", "--epochs", 40 * signals)
        done = run_script("main.py", *arguments, launcher=mpirun(2), env=ONE_THREAD)
        assert done.returncode == 0, done.stderr
        assert_same_run(tmp_path, tmp_path / "whole")

    return compare


@MPI
@pytest.mark.slow
def test_sigusr1_to_mpirun_saves_and_the_job_goes_on_bit_for_bit(
    compare_with_uninterrupted, demo_data, tmp_path
):
    end_after_signals_to_mpirun(1, demo_data, tmp_path)
    compare_with_uninterrupted(1)


@MPI
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sigusr1_to_mpirun_at_random_moments_costs_nothing(
    compare_with_uninterrupted, demo_data, tmp_path
):
    signals = int(os.environ.get("VAE_CF_SIGNALS", "4"))  # each takes half a minute
    end_after_signals_to_mpirun(signals, demo_data, tmp_path)
    compare_with_uninterrupted(signals)


@MPI
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_the_script_for_schedulers_passes_a_signal_on(number, demo_data, tmp_path):
    document = (ROOT / "docs/many-workers.md").read_text()
    (script,) = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    arguments = flags(demo_data, tmp_path, "--epochs", 10**6, "--save_every", "1e")
    command = shlex.join([*mpirun(2), sys.executable, "main.py", *arguments])
    script, replaced = re.subn(r"^mpirun.*(?= &$)", lambda _: command, script, flags=re.MULTILINE)
    assert replaced == 1
    with subprocess.Popen(
        ["bash", "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **ONE_THREAD},
    ) as job:  # fmt: skip
        wait_for(lambda: newest_step(tmp_path) > 0, job)
        job.send_signal(number)
        _, error = job.communicate(timeout=120)
    assert job.returncode == 138, error
    assert error.count(f"Stopped by SIGUSR1 at step {newest_step(tmp_path)}") == 2


@MPI
def test_one_worker_goes_on_with_what_two_began(interrupted, reference, demo_data, tmp_path):
    folder = copy(interrupted[0], tmp_path)
    done = Forked(flags(demo_data, folder, *WHOLE)).wait()
    assert done.returncode == 0, done.stderr
    assert_close_weights(folder, reference)


@MPI
def test_two_workers_go_on_with_what_one_began(short, demo_data, tmp_path):
    folder = copy(short, tmp_path, keep=8)
    arguments = flags(demo_data, folder, "--epochs", 2)
    done = run_script("main.py", *arguments, launcher=mpirun(2), env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert "at step 8 (1 epoch completed, batch 3 of the next)" in done.stdout
    assert newest_step(folder) == newest_step(short) == 10
    assert_close_weights(folder, short)


@MPI
@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        ("signal_in_step", (7, 8)),
        pytest.param("signal_in_validation", (3 * STEPS,), marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_rank_stops_all_and_they_go_on_bit_for_bit(
    fault, steps, reference_of_two, demo_data, tmp_path
):
    arguments = flags(demo_data, tmp_path, *WHOLE, "--batch_size_validation", 200)
    done = run_script(
        "tests/support/faulty_main.py", fault, *arguments, launcher=mpirun(2), env=ONE_THREAD
    )
    assert done.returncode == 143, done.stderr
    assert newest_step(tmp_path) in steps
    assert done.stderr.count(f"Stopped by SIGTERM at step {newest_step(tmp_path)}") == 2
    assert "Traceback" not in done.stderr
    done = run_script("main.py", *arguments, launcher=mpirun(2), env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, reference_of_two)


@MPI
def test_an_error_on_one_rank_ends_the_others(demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, *WHOLE, "--save_every", "1e")
    done = run_script(
        "tests/support/faulty_main.py", "crash", *arguments, launcher=mpirun(2), timeout=120
    )
    assert done.returncode == 1
    assert "RuntimeError: a mistake of the program" in done.stderr
    assert done.stderr.count("Traceback") == 1, "the sound rank has nothing to trace"
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005"]


@MPI
@pytest.mark.parametrize(
    "more",
    [("--save_every", "1e"), pytest.param(("--check_replicas", 2), marks=pytest.mark.slow)],
)
def test_a_flipped_bit_of_one_rank_is_named_and_never_saved(more, demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, *WHOLE, *more)
    done = run_script(FAULTY_MAIN, "flip_bit", *arguments, launcher=mpirun(2), timeout=120)
    assert done.returncode == 1
    sentence = "The weights of rank 1 differ from those of rank 0 at step 10 (2 epochs completed)"
    assert done.stderr.count(sentence) == 2
    assert "Traceback" not in done.stderr
    saved = ["step-00000005"] if "--save_every" in more else []
    assert [path.name for path in checkpoints(tmp_path)] == saved


@MPI
@pytest.mark.slow
def test_replicas_are_not_compared_with_check_replicas_0(demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, "--epochs", 2, "--check_replicas", 0)
    done = run_script(FAULTY_MAIN, "flip_bit", *arguments, launcher=mpirun(2), timeout=120)
    assert done.returncode == 0, done.stderr


@MPI
@pytest.mark.slow
def test_gradients_that_overflow_in_every_step_end_all_ranks(demo_data, tmp_path):
    arguments = flags(demo_data, tmp_path, *WHOLE, "--amp")
    done = run_script(FAULTY_MAIN, "overflow", *arguments, launcher=mpirun(2))
    assert done.returncode == 1
    sentence = (
        "Training diverged: non-finite gradients in 64 consecutive steps before step 65, epoch 13 "
        "(the loss scale of --amp is 1); last finite loss: 1"
    )
    assert done.stderr.count(sentence) == 2
    assert "Traceback" not in done.stderr


@MPI
def test_a_loss_that_is_not_finite_ends_all_ranks_and_spares_the_checkpoints(
    short, demo_data, tmp_path
):
    folder = copy(short, tmp_path)
    before = [variables(path) for path in checkpoints(folder)]
    arguments = flags(demo_data, folder, "--epochs", 9, "--save_every", "1e", "--lr", "1e30")
    done = run_script("main.py", *arguments, launcher=mpirun(2))
    assert done.returncode == 1
    assert "Training diverged: the loss of " in done.stderr
    assert "step 1" in done.stderr
    assert "epoch 3" in done.stderr
    assert "last finite loss: 1" in done.stderr
    assert "lower --lr than 1e+30" in done.stderr
    assert "Traceback" not in done.stderr
    for path, content in zip(checkpoints(folder), before, strict=True):
        assert all((variables(path)[name] == content[name]).all() for name in content)


@pytest.fixture
def mounted(tmp_path):
    """Mounts file systems that hold themselves in memory, which only root can do."""
    points = []

    def mount(options):
        point = tmp_path / f"disk{len(points)}"
        point.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", point]
        if shutil.which("mount") is None or subprocess.run(command, check=False).returncode != 0:
            pytest.skip("a file system can be mounted by root alone")
        points.append(point)
        return point

    yield mount
    for point in points:
        subprocess.run(["umount", "--lazy", point], check=True)


def test_on_a_full_disk_the_run_ends_with_a_sentence_and_keeps_what_it_had(mounted, demo_data):
    disk = mounted("size=1200k")  # room for two checkpoints
    arguments = flags(demo_data, disk, "--epochs", 9, *SAVE_EACH_STEP)
    code, _, err = run_main(*arguments)
    assert code == 1
    assert "step-00000003: cannot be written (No space left on device); earlier " in err
    assert sorted(path.name[5:] for path in (disk / "ckpt").iterdir()) == ["00000001", "00000002"]
    # A run that knows beforehand that there is no room does not begin.
    code, _, err = run_main(*arguments)
    assert code == 1
    assert "MiB are free" in err
    code, out, err = run_main("--test", *arguments[1 : -len(SAVE_EACH_STEP)])
    assert code == 0, err
    assert "step-00000002: step 2 (0 epochs completed, batch 2 of the next)" in out


def test_a_folder_that_cannot_be_written_is_named_before_training(mounted, demo_data, tmp_path):
    (tmp_path / "file").touch()
    for folder in (mounted("ro"), tmp_path / "file"):
        arguments = [*flags(demo_data, tmp_path), "--checkpoint_dir", str(folder / "ckpt")]
        code, out, err = run_main(*arguments)
        assert code == 2
        assert f"--checkpoint_dir {folder / 'ckpt'}: cannot be written (" in err
        assert "\nepoch " not in out


@pytest.mark.parametrize("name", ["run[1]", "lr=*?", "back\\slash"])
def test_a_folder_whose_name_is_a_pattern_holds_a_run_like_any_other(name, demo_data, tmp_path):
    folder = tmp_path / name
    everything = ("--results_dir", folder / "results", "--tensorboard_dir", folder / "board")
    for epochs in (1, 2):  # the second run resumes the first
        code, out, err = run_main(*flags(demo_data, folder, "--epochs", epochs), *everything)
        assert code == 0, err
    assert f"Resuming {folder / 'ckpt/step-00000005'}" in out
    code, out, err = run_main("--test", *flags(demo_data, folder)[1:])
    assert code == 0, err
    assert newest_step(folder) == 10


def test_results_that_cannot_be_written_are_named_before_training(demo_data, tmp_path):
    (tmp_path / "file").touch()
    results = tmp_path / "file/results"
    code, out, err = run_main(*flags(demo_data, tmp_path), "--results_dir", results)
    assert code == 2
    assert f"--results_dir {results}: cannot be written (Not a directory)" in err
    assert "\nepoch " not in out


def test_an_export_that_cannot_take_the_place_of_its_folder_is_refused_before_training(
    mounted, demo_data, tmp_path
):
    for folder in (mounted("size=1m"), mounted("ro") / "model"):
        code, out, err = run_main(*flags(demo_data, tmp_path), "--export", folder)
        assert code == 2
        assert f"--export {folder}: " in err
        assert "\nepoch " not in out


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--log_path", "/dev/full"], "--log_path /dev/full"),
        (["--tensorboard_dir", "disk/tb"], "--tensorboard_dir disk/tb"),
        (["--results_dir", "disk/run"], "--results_dir disk/run/epochs.csv"),
        (["--results_dir", "disk/run", "--trace"], "--trace disk/run/timeline_train.json"),
    ],
    ids=["log", "tensorboard", "epochs", "trace"],
)
def test_what_is_written_in_training_names_its_flag_on_a_full_disk_and_spares_the_checkpoints(
    more, named, mounted, short, demo_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("disk").symlink_to(mounted("size=4k"))
    Path("disk/all there is").write_bytes(bytes(4096))
    folder = copy(short, tmp_path)
    before = [verify(path) for path in checkpoints(folder)]
    code, _, err = run_main(*flags(demo_data, folder, "--epochs", 3), *more)
    assert code == 1
    assert f"{named}: cannot be written (No space left on device); fix this or name an" in err
    assert len(err.splitlines()) == 1
    assert [verify(path) for path in checkpoints(folder)] == before
    assert not [path for path in Path("disk").rglob("*") if path.name.endswith((".json", ".csv"))]


def test_results_on_a_full_disk_name_their_flag(mounted, short, demo_data, tmp_path):
    disk = mounted("size=4k")
    (disk / "all there is").write_bytes(bytes(4096))
    arguments = [*flags(demo_data, short), "--log_path", os.devnull, "--results_dir", disk]
    arguments[0] = "--test"
    code, _, err = run_main(*arguments)
    assert code == 1
    assert f"--results_dir {disk}/args.json: cannot be written (No space left on device)" in err


def test_results_and_summaries_may_lie_under_a_name_that_is_no_utf_8(demo_data, tmp_path):
    name = tmp_path / os.fsdecode(b"donn\xe9es")
    arguments = flags(demo_data, tmp_path, "--epochs", 1)
    code, _, err = run_main(*arguments, "--results_dir", name, "--tensorboard_dir", name)
    assert code == 0, err
    assert r"donn\udce9es" in (name / "report.html").read_text()
    assert [*name.glob("events.out.tfevents.*")]


@pytest.mark.parametrize("flag", ["--checkpoint_dir", "--results_dir"])
def test_a_run_into_a_folder_in_use_is_refused_and_leaves_the_log_of_the_other_as_it_is(
    flag, demo_data, tmp_path
):
    (tmp_path / "run.log").write_text("DLLL of the run that writes there\n")
    lock = lock_folder(tmp_path)
    arguments = (*flags(demo_data, tmp_path / "other"), "--log_path", tmp_path / "run.log")
    code, _, err = run_main(*arguments, flag, tmp_path)
    os.close(lock)
    assert code == 2
    assert f"{flag} {tmp_path}: another run is writing there; wait for its end, or name" in err
    assert (tmp_path / "run.log").read_text() == "DLLL of the run that writes there\n"
    assert not (tmp_path / "epochs.csv").exists()


def test_a_log_keeps_all_runs_each_from_its_parameters_on_and_one_folder_may_hold_everything(
    demo_data, tmp_path
):
    arguments = flags(demo_data, tmp_path, "--epochs", 1, "--results_dir", tmp_path / "ckpt")
    for more in ([], ["--restart"], []):
        code, _, err = run_main(*arguments, *more)
        assert code == 0, err
    steps = [line["step"] for line in log_lines(tmp_path / "run.log") if line["type"] == "LOG"]
    of_a_run = ["PARAMETER", [1], []]
    steps = [step for step, _ in itertools.groupby(steps)]
    assert steps == [*of_a_run, *of_a_run, "PARAMETER", []]


def damage(path, places):
    """Cuts the file off or changes a byte, at a place that chance decides on."""
    content = bytearray(path.read_bytes())
    place = places.randrange(len(content))
    if places.random() < 0.5:
        content[place] ^= places.randrange(1, 256)
    else:
        del content[place:]
    path.write_bytes(content)


def test_a_checkpoint_damaged_anywhere_is_named_and_never_used(short, demo_data, tmp_path):
    folder = copy(short, tmp_path)
    newest = checkpoints(folder)[-1]
    places = random.Random(3)
    arguments = flags(demo_data, folder, "--epochs", 3)
    for turn in range(30):
        shutil.rmtree(newest)
        shutil.copytree(checkpoints(short)[-1], newest)
        path = sorted(newest.iterdir())[turn % 3]
        damage(path, places)
        code, out, err = run_main(*(["--test", *arguments[1:]] if turn % 2 else arguments))
        assert code == 2, f"turn {turn}: {path}"
        assert f"{path}: " in err
        assert "\nepoch " not in out
    assert f"resume from an older one with --resume {checkpoints(folder)[-2]}" in err
    code, out, err = run_main(*arguments, "--resume", checkpoints(folder)[-2])
    assert code == 0, err
    assert f"previous run moved to {folder / 'ckpt/replaced-1'}" in out
    assert (folder / "ckpt/replaced-1" / newest.name).is_dir()
    assert newest_step(folder) == 15


def test_training_on_with_another_model_or_other_data_is_refused(short, demo_data, tmp_path):
    folder = copy(short, tmp_path)
    code, _, err = run_main(*flags(demo_data, folder, "--epochs", 3), "--latent_dim", 8)
    assert code == 2
    assert "latent_dim is 4 in the checkpoint, 8 now" in err
    done = run_prepare("--dataset", "synthetic", "--data_dir", tmp_path, "--seed", 1)
    assert done.returncode == 0, done.stderr
    code, _, err = run_main(*flags(tmp_path, folder, "--epochs", 3))
    assert code == 2
    assert "the dataset fingerprint is" in err


def test_resume_never_refuses_a_folder_in_use_and_must_an_empty_one(short, demo_data, tmp_path):
    folder = copy(short, tmp_path)
    code, _, err = run_main(*flags(demo_data, folder), "--resume", "never")
    assert code == 2
    assert "already holds step-00000010" in err
    code, _, err = run_main(*flags(demo_data, tmp_path / "empty"), "--resume", "must")
    assert code == 2
    assert "holds no checkpoint" in err
    code, _, err = run_main(*flags(demo_data, tmp_path / "empty"), "--resume", folder)
    assert code == 2
    assert "checkpoint not found" in err


@MPI
def test_what_rank_0_alone_finds_wrong_ends_all_ranks(short, demo_data, tmp_path):
    arguments = [*flags(demo_data, copy(short, tmp_path)), "--resume", "never"]
    done = run_script("main.py", *arguments, launcher=mpirun(2), timeout=120)
    assert done.returncode == 2
    assert "rank 0: --resume never" in done.stderr
    assert "Traceback" not in done.stderr


def test_restart_starts_over_and_sets_the_old_run_aside(short, demo_data, tmp_path):
    folder = copy(short, tmp_path)
    arguments = [*flags(demo_data, folder, "--epochs", 1), "--restart"]
    code, out, err = run_main(*arguments)
    assert code == 0, err
    assert "Training a new model." in out
    assert [path.name for path in checkpoints(folder)] == ["step-00000005"]
    assert len(list((folder / "ckpt/replaced-1").glob("step-*"))) == 3
    run_main(*arguments)
    assert [p.name for p in (folder / "ckpt/replaced-2").iterdir()] == ["step-00000005"]


def test_a_flag_that_would_break_the_epoch_is_refused_and_another_one_said(
    short, demo_data, tmp_path
):
    folder = copy(short, tmp_path, keep=9)
    code, _, err = run_main(*flags(demo_data, folder, "--epochs", 2), "--seed", "5")
    assert code == 2
    assert "saved within an epoch with --seed 0" in err
    code, out, err = run_main(*flags(demo_data, folder, "--epochs", 2), "--lr", "0.02")
    assert code == 0, err
    assert "at step 9 (1 epoch completed, batch 4 of the next); --lr changed from 0.01 to" in out


def test_early_stop_ends_the_run_and_the_best_checkpoint_is_kept_and_tested(demo_data, tmp_path):
    arguments = flags(
        demo_data, tmp_path, "--epochs", 9, "--validation_step", 1, "--lr", 0, "--early_stop", 3,
        "--save_every", "1e", "--keep_checkpoints", 1, "--test",
    )  # fmt: skip
    code, out, err = run_main(*arguments)
    assert code == 0, err
    assert "Training finished: early stopping: no improvement in NDCG@100 for 3 validations." in out
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005", "step-00000020"]
    assert f"Loaded checkpoint {tmp_path / 'ckpt/step-00000005'}" in out
    code, out, err = run_main(*arguments, "--checkpoint", "latest")
    assert code == 0, err
    assert "Nothing to do: early stopping: no improvement in NDCG@100 for 3 validations." in out
    assert f"Loaded checkpoint {tmp_path / 'ckpt/step-00000020'}" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--save_every", "0"),
        ("--save_every", "0m"),
        ("--save_every", "-1e"),
        ("--save_every", "1h"),
        ("--keep_checkpoints", "0"),
        ("--early_stop", "-1"),
        ("--checkpoint", "first"),
        ("--restart", "--resume", "must"),
    ],
)
def test_an_invalid_value_is_refused_with_the_flags_name(arguments):
    with pytest.raises(UserError, match=arguments[0]):
        parse_flags(["--train", "--checkpoint_dir", "x", *arguments])


@pytest.mark.parametrize("arguments", [("--restart",), ("--resume", "must")])
def test_resumption_needs_a_folder(arguments):
    with pytest.raises(UserError, match="needs --checkpoint_dir"):
        parse_flags(["--train", *arguments])
