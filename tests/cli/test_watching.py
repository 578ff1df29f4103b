"""Watching a run: a bar on a terminal, plain lines elsewhere, curves of interrupted runs too."""

import csv
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from helpers import ROOT, SMALL, flags, output_of, run_main
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Two runs are watched by all.
pytestmark = pytest.mark.xdist_group("watching")


def train_flags(data, folder, *more):
    outputs = ("--results_dir", folder / "results", "--tensorboard_dir", folder / "summaries")
    return flags(data, folder, "--train", *SMALL, "--validation_step", 2, *outputs, *more)


def run_on_terminal(folder, *arguments):
    """Runs a script in a folder, on a terminal of 100 columns; returns all that it wrote there."""
    terminal, end_of_program = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder, stdout=end_of_program, stderr=end_of_program,
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
    piped = run_main(*train_flags(demo_data, folder, "--epochs", 3))
    assert piped.returncode == 0, piped.stderr
    resumed = train_flags(demo_data, Path(), "--epochs", 5, "--test")
    titles = demo_data / "synthetic/extracted/synthetic/movies.csv"
    recommended = ("--recommend", "--output", "out.csv", "--explain", 2, "--item_names", titles)
    written = run_on_terminal(
        folder, ROOT / "main.py", *resumed, *recommended, "--top_results", 5,
        "--inference_benchmark", "--inference_batch_sizes", "1,64", "--export", "served",
    )  # fmt: skip
    return folder, piped, written


def test_a_pipe_gets_plain_lines_without_a_bar(watched):
    first, *_ = watched[1].stdout.splitlines()
    assert first == (
        "Data set synthetic: 4,953 training users, 1,200 items; 1 worker (single process, no "
        "Horovod)."
    )
    output = watched[1].stdout + watched[1].stderr
    assert "/s]" not in output
    assert "\r" not in output


def test_a_terminal_shows_a_bar_that_tears_no_line_and_leaves_nothing(watched):
    written = watched[2]
    assert "Training:  60%|" in written  # where the run before it ended
    assert " steps/s]" in written
    shown = [*visible(written)]
    assert not [line for line in shown if "/s]" in line]
    assert "Training finished: 5 epochs completed." in shown
    for bar in ("Testing the model", "Testing most popular", "Recommending and explaining"):
        assert f"{bar}:   0%|" in written
    assert "Exporting:   0%|" in written
    assert " ...\r\n" not in written  # of the sentences that take the place of bars in a pipe


def test_a_terminal_shows_a_line_for_each_epoch_and_validation_and_none_beyond_100_columns(watched):
    shown = [*visible(watched[2])]
    assert [line for line in shown if len(line) > 100] == []
    assert not [line for line in shown if "DLL" in line or "absl" in line]
    epochs = [line for line in shown if line.startswith("epoch ")]
    number = r"\d+(\.\d+)?"
    of_epoch = rf"   loss {number}   [\d,]+ users/s"
    of_validation = (
        rf"     NDCG@100 {number} ± {number}   Recall@20 {number}   Recall@50 {number}"
        r"(   best so far)?"
    )
    forms = (
        rf"epoch 4/5{of_epoch}   \d+ s left", rf"epoch 4{of_validation}",
        rf"epoch 5/5{of_epoch}", rf"epoch 5{of_validation}",
    )  # fmt: skip
    for line, form in zip(epochs, forms, strict=True):
        assert re.fullmatch(form, line), line
    assert len([line for line in shown if line.startswith("batch ")]) == 2
    assert len([line for line in shown if "  <-  " in line]) == 3
    table = shown.index("Test on 500 held-out users, 500 of them with targets:")
    assert len(shown) - table < 40  # the end of the run fits into a window


def test_what_a_blend_and_the_baselines_take_is_shown_in_100_columns(
    watched, demo_data, monkeypatch
):
    monkeypatch.chdir(watched[0])
    arguments = flags(
        demo_data, Path(), *SMALL, "--test", "--blend", "ease", "--log_path", os.devnull,
        "--baselines", "popularity,itemknn,ease", "--recommend", "--output", "out.csv",
    )  # fmt: skip
    titles = demo_data / "synthetic/extracted/synthetic/movies.csv"
    written = run_on_terminal(watched[0], ROOT / "main.py", *arguments, "--item_names", titles)
    phases = (
        "Fitting EASE with lambda 300, dropout 0.5", "Validating EASE with lambda 300, dropout 0.5",
        "Computing the weights of EASE", "Choosing the weight of the blend", "Testing the model",
        "Fitting item-kNN", "Testing item-kNN", "Testing EASE", "Recommending",
    )  # fmt: skip
    assert [phase for phase in phases if f"{phase}:   0%|" not in written] == []
    lines = [*visible(written)]
    assert [line for line in lines if len(line) > 100 or "/s]" in line] == []
    assert len(next(line for line in lines if line.startswith("ndcg@100"))) == 100
    out = output_of(run_main(*arguments))
    assert [phase for phase in phases if f"{phase} ...\n" not in out] == []


def test_preparing_shows_its_rows_on_a_terminal(demo_data, tmp_path):
    ratings = demo_data / "synthetic/extracted/synthetic/ratings.csv"
    written = run_on_terminal(
        tmp_path, ROOT / "prepare_dataset.py", "--data_dir", tmp_path, "--dataset", "mine",
        "--ratings", ratings, "--heldout_users", 0.1,
    )  # fmt: skip
    assert "Reading the ratings: " in written
    assert "Splitting: " in written
    shown = [*visible(written)]
    assert [line for line in shown if len(line) > 100 or "/s]" in line] == []


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
