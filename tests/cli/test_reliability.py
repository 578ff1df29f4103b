"""Whatever happens to a run, its last good checkpoint goes on: docs/reliability.md is the table."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers import (
    Forked,
    assert_same_run,
    checkpoints,
    copy,
    error_of,
    flags,
    log_lines,
    newest_step,
    output_of,
    run_main,
    run_prepare,
    wait_for,
)

from vae.models.checkpoints.checkpoint import verify
from vae.models.training import train
from vae.utils.atomic import lock_folder

STEPS = 5  # of an epoch
QUICK = (
    "--hidden_dim", 16, "--latent_dim", 4, "--batch_size_train", 1001, "--lr", 0.01,
    "--validation_step", 3,
)  # fmt: skip
WHOLE = ("--epochs", 40)
SAVE_EACH_STEP = ("--save_every", "0.0000001m", "--keep_checkpoints", 3)


def train_flags(data, folder, *more):
    return flags(data, folder, "--train", *QUICK, *more)


def eval_flags(data, folder, *more):
    return flags(data, folder, "--test", *QUICK, *more)


@pytest.fixture(scope="session")
def reference(demo_data, build_once):
    """The folder of a run that nobody interrupted."""

    def train(folder):
        output_of(Forked(train_flags(demo_data, folder, *WHOLE)).wait())

    return build_once("uninterrupted", train)[0]


@pytest.fixture(scope="session")
def short(demo_data, build_once):
    """The folder of a finished run of two epochs, with a checkpoint of each of its last steps."""

    def train(folder):
        output_of(run_main(*train_flags(demo_data, folder, "--epochs", 2, *SAVE_EACH_STEP)))

    folder, _ = build_once("short", train)
    assert [int(path.name[5:]) for path in checkpoints(folder)] == [8, 9, 10]
    return folder


def being_written(folder):
    """Checkpoints that are not whole yet."""
    return list((folder / "ckpt").glob(".writing-*"))


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_run_ends_like_the_uninterrupted_one(
    kills, reference, demo_data, tmp_path
):
    arguments = train_flags(demo_data, tmp_path, *WHOLE, *SAVE_EACH_STEP)
    moments = random.Random(7)
    cut_checkpoints = 0
    for kill in range(kills):
        target = newest_step(tmp_path) + moments.randrange(12)
        run = Forked(arguments)
        while run.poll() is None and newest_step(tmp_path) < target:
            time.sleep(0.001)
        if kill % 2:  # somewhere in a step
            time.sleep(moments.uniform(0, 0.03))
        else:  # in a checkpoint
            while run.poll() is None and not being_written(tmp_path):
                time.sleep(0.0002)
        run.process.kill()
        assert run.wait().returncode == -signal.SIGKILL, "it must not end by itself"
        cut_checkpoints += len(being_written(tmp_path))
    assert newest_step(tmp_path) > 2 * kills
    output_of(Forked(arguments).wait())
    assert not list((tmp_path / "ckpt").glob(".*")), "what killed runs left is still there"
    assert kills < 20 or cut_checkpoints, "no kill hit a checkpoint while it was written"
    assert_same_run(tmp_path, reference)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, 140, marks=pytest.mark.slow),
        pytest.param(signal.SIGXCPU, 152, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_after_the_step_and_the_run_goes_on_from_there(
    number, code, reference, demo_data, tmp_path
):
    arguments = train_flags(demo_data, tmp_path, *WHOLE)
    run = Forked(arguments)
    # The first validation's checkpoint is of step 15; then the next one may come.
    wait_for(lambda: newest_step(tmp_path) >= 3 * STEPS, run)
    for _ in range(2):  # as GNU timeout sends one, to the process and to its group
        os.kill(run.process.pid, number)
    error = error_of(run.wait(timeout=120), code)
    assert f"Stopped by {number.name} at step {newest_step(tmp_path)}" in error
    stopped = checkpoints(tmp_path)[-1]
    out = output_of(Forked([*arguments, "--resume", "must"]).wait())
    assert f"Resuming {stopped} at step {int(stopped.name[5:])} (" in out
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
        output_of(run_main(*train_flags(demo_data, folder, *more)))

    return build_once("validated", train)[0]


def test_signals_in_all_validations_cost_no_number_of_epochs_csv(
    validated, demo_data, tmp_path, monkeypatch
):
    arguments = train_flags(
        demo_data, tmp_path, "--epochs", 6, "--results_dir", tmp_path / "results"
    )
    evaluate, calls = train.evaluate, itertools.count()

    def interrupted_each_other_time(*args, **kwargs):
        if next(calls) % 2 == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # until the thread that waits for signals has read it
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(train, "evaluate", interrupted_each_other_time)
    for validation in (1, 2):
        error_of(run_main(*arguments), code=143)
        assert newest_step(tmp_path) == 3 * STEPS * validation
    output_of(run_main(*arguments))
    assert_same_run(tmp_path, validated)
    pd.testing.assert_frame_equal(table(tmp_path), table(validated), check_exact=True)


def test_a_run_with_nothing_left_to_train_reports_what_the_training_did(
    validated, demo_data, tmp_path
):
    folder = copy(validated, tmp_path)
    results = ("--epochs", 6, "--results_dir", tmp_path / "results", "--test")
    output_of(run_main(*train_flags(demo_data, folder, *results)))
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
    here = ("--checkpoint_dir", path)
    for which in ("best", "latest"):
        out = output_of(run_main(*eval_flags(demo_data, tmp_path, *here, "--checkpoint", which)))
        assert f"Loaded checkpoint {path}: step 10" in out
    for more in ((), ("--restart",)):
        error = error_of(run_main(*train_flags(demo_data, tmp_path, *here, *more)))
        assert f"--checkpoint_dir {path}: is itself a checkpoint; pass the folder" in error
    assert sorted(path.iterdir()) == before


@pytest.fixture
def mounted(tmp_path):
    """Mounts file systems that hold themselves in memory, which only root can do."""
    points = []

    def mount(options, name="disk"):
        point = tmp_path / name
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
    arguments = train_flags(demo_data, disk, "--epochs", 9, *SAVE_EACH_STEP)
    error = error_of(run_main(*arguments), code=1)
    assert "step-00000003: cannot be written (No space left on device); earlier " in error
    assert sorted(path.name[5:] for path in (disk / "ckpt").iterdir()) == ["00000001", "00000002"]
    # A run that knows beforehand that there is no room does not begin.
    assert "MiB are free" in error_of(run_main(*arguments), code=1)
    out = output_of(run_main(*eval_flags(demo_data, disk)))
    assert "step-00000002: step 2 (0 epochs completed, batch 2 of the next)" in out


@pytest.mark.parametrize(
    ("flag", "path"),
    [
        ("--checkpoint_dir", "read-only/ckpt"),
        ("--checkpoint_dir", "file/ckpt"),
        ("--results_dir", "file/results"),
        ("--export", "disk"),  # a mounted folder cannot be replaced
        ("--export", "read-only/model"),
    ],
)
def test_an_output_that_cannot_be_written_is_named_before_training(
    flag, path, mounted, demo_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if path.startswith("file"):
        Path("file").touch()
    elif path == "disk":
        mounted("size=1m")
    else:
        mounted("ro", "read-only")
    assert f"{flag} {path}: " in error_of(run_main(*train_flags(demo_data, tmp_path), flag, path))


def test_a_folder_whose_name_is_a_pattern_holds_a_run_like_any_other(demo_data, tmp_path):
    folder = tmp_path / "lr=*? run[1] back\\slash"
    results = folder / os.fsdecode(b"donn\xe9es")  # which is no UTF-8
    everything = ("--results_dir", results, "--tensorboard_dir", results)
    for epochs in (1, 2):  # the second run resumes the first
        arguments = train_flags(demo_data, folder, "--epochs", epochs, *everything)
        out = output_of(run_main(*arguments))
    assert f"Resuming {folder / 'ckpt/step-00000005'}" in out
    output_of(run_main(*eval_flags(demo_data, folder)))
    assert newest_step(folder) == 10
    assert r"donn\udce9es" in (results / "report.html").read_text()
    assert [path for path in results.iterdir() if path.name.startswith("events.out.tfevents.")]


@pytest.mark.parametrize(
    ("mode", "more", "named"),
    [
        (train_flags, ["--log_path", "/dev/full"], "--log_path /dev/full"),
        (train_flags, ["--tensorboard_dir", "disk/tb"], "--tensorboard_dir disk/tb"),
        (train_flags, ["--results_dir", "disk/run"], "--results_dir disk/run/epochs.csv"),
        (train_flags, ["--results_dir", "disk", "--trace"], "--trace disk/timeline_train.json"),
        (eval_flags, ["--results_dir", "disk"], "--results_dir disk/args.json"),
    ],
    ids=["log", "tensorboard", "epochs", "trace", "results"],
)
def test_what_is_written_names_its_flag_on_a_full_disk_and_spares_the_checkpoints(
    mode, more, named, mounted, short, demo_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (mounted("size=4k") / "all there is").write_bytes(bytes(4096))
    folder = copy(short, tmp_path)
    before = [verify(path) for path in checkpoints(folder)]
    epochs = ("--epochs", 3) if mode is train_flags else ()
    error = error_of(run_main(*mode(demo_data, folder, *epochs, *more)), code=1)
    assert f"{named}: cannot be written (No space left on device); fix this or name an" in error
    assert len(error.splitlines()) == 1
    assert [verify(path) for path in checkpoints(folder)] == before
    assert not [path for path in Path("disk").rglob("*") if path.name.endswith((".json", ".csv"))]


@pytest.mark.parametrize("flag", ["--checkpoint_dir", "--results_dir"])
def test_a_run_into_a_folder_in_use_is_refused_and_leaves_the_log_of_the_other_as_it_is(
    flag, demo_data, tmp_path
):
    (tmp_path / "run.log").write_text("DLLL of the run that writes there\n")
    lock = lock_folder(tmp_path)
    arguments = (*train_flags(demo_data, tmp_path / "other"), "--log_path", tmp_path / "run.log")
    error = error_of(run_main(*arguments, flag, tmp_path))
    os.close(lock)
    assert f"{flag} {tmp_path}: another run is writing there; wait for its end, or name" in error
    assert (tmp_path / "run.log").read_text() == "DLLL of the run that writes there\n"
    assert not (tmp_path / "epochs.csv").exists()


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
    arguments = train_flags(demo_data, folder, "--epochs", 3)
    for turn in range(30):
        shutil.rmtree(newest)
        shutil.copytree(checkpoints(short)[-1], newest)
        path = sorted(newest.iterdir())[turn % 3]
        damage(path, places)
        error = error_of(run_main(*(eval_flags(demo_data, folder) if turn % 2 else arguments)))
        assert f"{path}: " in error
    assert f"resume from an older one with --resume {checkpoints(folder)[-2]}" in error
    out = output_of(run_main(*arguments, "--resume", checkpoints(folder)[-2]))
    assert f"previous run moved to {folder / 'ckpt/replaced-1'}" in out
    assert (folder / "ckpt/replaced-1" / newest.name).is_dir()
    assert newest_step(folder) == 15


@pytest.mark.parametrize(
    ("start", "more", "problem"),
    [
        ("finished", "--latent_dim 8", "latent_dim is 4 in the checkpoint, 8 now"),
        ("finished", "--data_dir .", "the dataset fingerprint is"),
        ("finished", "--resume never", "already holds step-00000010"),
        ("in an epoch", "--seed 5", "saved within an epoch with --seed 0"),
        ("empty", "--resume must", "holds no checkpoint"),
        ("empty", "--resume .", "checkpoint not found"),
    ],
)
def test_a_start_that_does_not_fit_the_flags_or_the_data_is_refused(
    start, more, problem, short, demo_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if start != "empty":
        copy(short, tmp_path, keep=9 if start == "in an epoch" else None)
    if "--data_dir" in more:
        output_of(run_prepare("--dataset", "synthetic", "--data_dir", ".", "--seed", 1))
    error = error_of(run_main(*train_flags(demo_data, tmp_path, "--epochs", 3), *more.split()))
    assert problem in error


def test_a_flag_that_changes_the_rest_of_the_training_is_named(short, demo_data, tmp_path):
    folder = copy(short, tmp_path, keep=9)
    out = output_of(run_main(*train_flags(demo_data, folder, "--epochs", 2, "--lr", 0.02)))
    assert "at step 9 (1 epoch completed, batch 4 of the next); --lr changed from 0.01 to" in out


def test_restart_sets_the_old_run_aside_and_one_log_and_one_folder_hold_all_runs(
    short, demo_data, tmp_path
):
    folder = copy(short, tmp_path)
    arguments = train_flags(demo_data, folder, "--epochs", 1, "--results_dir", folder / "ckpt")
    for replaced, names in (("replaced-1", [8, 9, 10]), ("replaced-2", [5])):
        assert "Training a new model." in output_of(run_main(*arguments, "--restart"))
        assert [path.name for path in checkpoints(folder)] == ["step-00000005"]
        aside = sorted(path.name for path in (folder / "ckpt" / replaced).iterdir())
        assert aside == [f"step-{step:08}" for step in names]
    output_of(run_main(*arguments))
    steps = [line["step"] for line in log_lines(tmp_path / "run.log") if line["type"] == "LOG"]
    of_a_run = ["PARAMETER", [1], []]
    steps = [step for step, _ in itertools.groupby(steps)]
    assert steps == [*of_a_run, *of_a_run, "PARAMETER", []]


def test_early_stop_ends_the_run_and_the_best_checkpoint_is_kept_and_tested(demo_data, tmp_path):
    arguments = train_flags(
        demo_data, tmp_path, "--epochs", 9, "--validation_step", 1, "--lr", 0, "--early_stop", 3,
        "--save_every", "1e", "--keep_checkpoints", 1, "--test",
    )  # fmt: skip
    out = output_of(run_main(*arguments))
    assert "Training finished: early stopping: no improvement in NDCG@100 for 3 validations." in out
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005", "step-00000020"]
    assert f"Loaded checkpoint {tmp_path / 'ckpt/step-00000005'}" in out
    out = output_of(run_main(*arguments, "--checkpoint", "latest"))
    assert "Nothing to do: early stopping: no improvement in NDCG@100 for 3 validations." in out
    assert f"Loaded checkpoint {tmp_path / 'ckpt/step-00000020'}" in out
