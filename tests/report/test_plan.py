"""--check: everything is checked, the plan is printed, and nothing is written."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL, checkpoints, mpirun, output_of, run_main, run_script, variables

from vae.load.store import open_dataset
from vae.utils.atomic import lock_folder

MODES = (
    "--train", "--test", "--inference_benchmark", "--trace", "--recommend", "--output", "out/r.csv",
    "--export", "model", "--export_users", "u.parquet", "--results_dir", "results",
    "--tensorboard_dir", "summaries", "--baselines", "ease",
)  # fmt: skip
HUGE = ("--hidden_dim", 500_000, "--latent_dim", 500_000)


@pytest.fixture
def here(run, demo_data, tmp_path, monkeypatch):
    """An empty folder, and the flags of the finished run on a copy of its checkpoints in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run[0] / "ckpt", "ckpt")
    Path("file").write_text("movieId\nx\n")
    return ["--dataset", "synthetic", "--data_dir", demo_data, *SMALL, "--log_path", "new/log"]


def tree():
    return {path: path.stat().st_mtime_ns for path in sorted(Path().rglob("*"))}


def test_the_plan_has_the_numbers_of_the_run_and_nothing_is_written(here, run, demo_data):
    before = tree()
    out = output_of(run_main("--check", *MODES, "--checkpoint_dir", "new", "--epochs", 6, *here))
    assert tree() == before
    lines = out.splitlines()
    assert all(len(line) <= 100 for line in lines)
    weights = {n: v for n, v in variables(checkpoints(run[0])[-1]).items() if "/Adam" not in n}
    count = sum(v.size for n, v in weights.items() if n[-6:] == "kernel" or n[-4:] == "bias")
    assert f"Model: {count:,} parameters; tanh encoder, deep decoder, normal prior." in lines
    users = len(open_dataset(demo_data, "synthetic").train_user_ids)
    steps = int(np.ceil(users / 200))
    assert f"Training: epochs 1 to 6, {steps} steps each, of 200 users per worker at most." in lines
    assert "Training a new model." in lines
    size = sum(path.stat().st_size for path in checkpoints(run[0])[-1].glob("variables.data*"))
    planned = float(re.search(r"Checkpoint: ([\d.]+) MB each, up to 4 at a time", out)[1])
    assert planned == pytest.approx(size / 1e6, abs=0.06)
    written = [line.split()[-1] for line in lines if line.startswith("Would write: ")]
    assert sorted(written) == sorted(
        ["new/log", "new", "out/r.csv", "model", "u.parquet", "results", "summaries",
         "results/timeline_train.json", "results/timeline_inference.json"]
    )  # fmt: skip


def test_a_run_that_resumes_says_where_and_one_without_training_loads_the_checkpoint(here):
    before = tree()
    folder = ("--checkpoint_dir", "ckpt", *here)
    out = output_of(run_main("--check", "--train", "--epochs", 8, *folder))
    assert "Resuming ckpt/step-00000150 at step 150 (6 epochs completed)" in out
    assert "Training: epochs 7 to 8, " in out
    out = output_of(run_main("--check", "--train", "--epochs", 6, *folder))
    assert "Nothing to do: 6 epochs completed." in out
    assert "Would write: --checkpoint_dir" not in out
    assert "Would move" not in out
    restarted = ("--restart", "--blend", "ease", "--warm_start", "ckpt")
    out = output_of(run_main("--check", "--train", *restarted, *folder))
    assert "EASE takes up to 0.01 GB more." in out  # 1,200 items x 1,200 items x 4 bytes
    assert f"Would move {len(checkpoints(Path()))} checkpoints of the previous run to" in out
    assert "Loaded checkpoint ckpt/step-0" in output_of(run_main("--check", "--test", *folder))
    assert tree() == before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "no mode selected"),
        (("--train", "--epochs", 0), "--epochs 0 is out of range"),
        (("--train", "--dataset", "absent"), "absent"),
        (("--train", *HUGE), "GB of memory"),
        (("--train", "--recommend", "none.csv", "--output", "r.csv"), "none.csv: file not found"),
        (("--train", "--recommend", "file", "--output", "r.csv"), "file: has no column 'userId'"),
        (("--train", "--export", "ckpt"), "--export ckpt: is not an empty folder"),
        (("--train", "--export_users", "file/u.parquet"), "cannot be written (Not a directory)"),
        (("--train", "--results_dir", "file"), "--results_dir file: cannot be written (File"),
        (("--train", "--tensorboard_dir", "file/x"), "--tensorboard_dir file/x: cannot be written"),
        (("--train", "--checkpoint_dir", "file"), "--checkpoint_dir file: cannot be written"),
        (("--train", "--log_path", "ckpt"), "--log_path ckpt: cannot be written (Is a directory)"),
        (("--train", "--log_path", "file/log"), "--log_path file/log: cannot be written"),
        (("--train", "--resume", "must", "--checkpoint_dir", "c"), "--resume must: c holds no ch"),
        (("--train", "--latent_dim", 9, "--checkpoint_dir", "ckpt"), "latent_dim"),
        (("--test", "--checkpoint_dir", "c"), "--checkpoint_dir c: holds no checkpoint"),
        (("--test", "--checkpoint_dir", "damaged"), "damaged"),
        (("--train", "--results_dir", "locked"), "another run is writing there"),
    ],
)
def test_what_cannot_run_is_refused_as_without_it(here, flags, sentence):
    Path("locked").mkdir()
    shutil.copytree("ckpt", "damaged")
    for file in Path("damaged").rglob("variables.data*"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    lock, before = lock_folder(Path("locked")), tree()
    checked = run_main(*here, *flags, "--check")
    assert tree() == before
    assert checked.returncode == 2
    assert sentence in checked.stderr
    done = run_main(*here, *flags)
    os.close(lock)
    assert done.returncode == 2
    # What cannot be created has a reason and an advice of its own.
    assert done.stderr.split(" (")[0] == checked.stderr.split(" (")[0]


def test_too_little_disk_is_refused(here, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    checked = run_main("--check", "--train", "--checkpoint_dir", "new/c", *here)
    assert checked.returncode == 1
    assert "--checkpoint_dir new/c: 0.0 MiB are free and a checkpoint takes" in checked.stderr


@pytest.mark.xdist_group("mpi")
@pytest.mark.parametrize(
    ("parallel", "users", "hidden"), [("users", 100, None), ("items", 200, 64)]
)
def test_workers_check_together_and_one_of_them_prints_the_plan(here, parallel, users, hidden):
    before = tree()
    more = (*MODES, "--parallel", parallel, "--checkpoint_dir", "new")
    done = run_script("main.py", "--check", *more, *here, cwd=".", launcher=mpirun(2))
    assert output_of(done).count("Checked (--check): nothing is written.") == 1
    assert f"of {users} users per worker at most." in done.stdout
    sent = float(re.search(r"Traffic: (\d\.\d) MB per step and worker", done.stdout)[1])
    assert sent > 0.5 if hidden is None else sent == round(4e-6 * users * (2 * hidden + 2), 1)
    assert tree() == before
