"""Watching a run: a bar on a terminal, plain lines elsewhere, curves of interrupted runs too."""

import csv
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from helpers import ROOT, SMALL, run_main
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Two runs are watched by all.
pytestmark = pytest.mark.xdist_group("watching")


def flags(data, folder, *more):
    return [
        str(flag)
        for flag in (
            "--train", "--dataset", "synthetic", "--data_dir", data, *SMALL,
            "--validation_step", 2, "--checkpoint_dir", folder / "ckpt",
            "--log_path", folder / "run.log", "--results_dir", folder / "results",
            "--tensorboard_dir", folder / "summaries", *more,
        )
    ]  # fmt: skip


def run_on_terminal(arguments):
    """Runs main.py on a terminal of 100 columns; returns all that it wrote there."""
    terminal, end_of_program = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT, stdout=end_of_program, stderr=end_of_program,
    ) as run:  # fmt: skip
        os.close(end_of_program)
        written = b""
        try:
            while block := os.read(terminal, 4096):
                written += block
        except OSError:  # how Linux reports that the program has closed the terminal
            pass
    os.close(terminal)
    assert run.returncode == 0, written.decode()
    return written.decode()


def visible(written):
    """The lines that a terminal is left with: a carriage return lets others overwrite."""
    for line in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        yield shown.rstrip()


@pytest.fixture(scope="module")
def watched(demo_data, tmp_path_factory):
    """A run of 3 epochs into a pipe, resumed to 5 on a terminal: folder, and output of both."""
    folder = tmp_path_factory.mktemp("watched")
    piped = run_main(*flags(demo_data, folder, "--epochs", 3))
    assert piped.returncode == 0, piped.stderr
    return folder, piped, run_on_terminal(flags(demo_data, folder, "--epochs", 5, "--test"))


def test_a_pipe_gets_plain_lines_without_a_bar(watched):
    output = watched[1].stdout + watched[1].stderr
    assert "step/s" not in output
    assert "\r" not in output


def test_a_terminal_shows_a_bar_that_tears_no_line_and_leaves_nothing(watched):
    written = watched[2]
    assert "Training:  60%|" in written  # where the run before it ended
    assert "step/s]" in written
    shown = [*visible(written)]
    assert not [line for line in shown if "step/s" in line]
    numbers = [line.split(" - ")[1].split(" ")[0] for line in shown if line.startswith("DLL ")]
    assert numbers == ["PARAMETER", "(4,)", "(4,)", "(5,)", "(5,)", "()"]
    assert "Training finished: 5 epochs completed." in shown


def test_the_table_of_epochs_covers_the_run_before_the_interruption(watched):
    with (watched[0] / "results/epochs.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert all(row["loss"] and row["learning_rate"] == "0.005" for row in rows)
    assert [bool(row["ndcg@100"]) for row in rows] == [False, True, True, True, True]


def test_tensorboard_has_a_point_for_each_epoch_of_both_runs(watched):
    events = EventAccumulator(str(watched[0] / "summaries")).Reload()
    for name in (
        "loss", "neg_log_likelihood", "kl_divergence", "kl_weight", "learning_rate",
        "train_throughput",
    ):  # fmt: skip
        assert [event.step for event in events.Scalars(f"train/{name}")] == [1, 2, 3, 4, 5]
    for name in ("ndcg@100", "recall@20", "recall@50"):
        assert [event.step for event in events.Scalars(f"validation/{name}")] == [2, 3, 4, 5]


def test_the_report_shows_the_test_and_the_curves_of_both_runs(watched):
    results = watched[0] / "results"
    html = (results / "report.html").read_text()
    summary = json.loads((results / "results.json").read_text())
    for name in ("test_ndcg@100", "popularity_ndcg@100"):
        assert f"{summary[name]:.5f} ± {summary[f'{name}_se']:.5f}" in html
    assert "Epochs 1 to 5." in html
    assert html.count("data:image/png;base64,") == len([*results.glob("*.png")]) == 4
    assert not [*results.glob(".*")], "a temporary file was left"


def test_a_folder_of_results_that_cannot_be_written_ends_the_run_before_training(
    demo_data, tmp_path
):
    (tmp_path / "file").touch()
    folder = tmp_path / "file/results"
    done = run_main(*flags(demo_data, tmp_path, "--results_dir", folder))
    assert done.returncode == 2
    assert f"--results_dir {folder}: cannot be written" in done.stderr
    assert "train_epoch_time" not in done.stdout
