"""The console: closed, gone, full or unable to show a character, it ends no program."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, SMALL, checkpoints, flags, log_lines, newest_step, wait_for

from vae.models.checkpoints.checkpoint import verify
from vae.utils.console import trimmed
from vae.utils.signals import exit_code

PREPARE = ("prepare_dataset.py", "--dataset", "synthetic", "--data_dir")


def in_shell(redirections, script, *flags, **options):
    """Runs a script as a shell with these redirections does."""
    return subprocess.run(
        ["bash", "-c", f'exec "$@" {redirections}', "bash", sys.executable, script, *flags],
        cwd=ROOT, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


@pytest.fixture
def train(demo_data, tmp_path):
    """A command line of a short training with a test."""
    more = ("--train", "--test", *SMALL, "--epochs", 3)
    return ["main.py", *flags(demo_data, tmp_path, *more)]


def start_on_terminal(train, before=""):
    """Starts a training on a terminal of its own, without standard error; returns both."""
    screen, terminal = pty.openpty()
    # A session's first process gets the first terminal that it opens for its own: closing that one
    # sends SIGHUP. And the table of the test has a character that ASCII lacks.
    command = f'{before} exec "$@" <{os.ttyname(terminal)} 2>&-'
    run = subprocess.Popen(
        ["bash", "-c", command, "bash", sys.executable, *train], cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE,
    )  # fmt: skip
    return run, (terminal, screen)


def test_a_training_under_nohup_outlives_its_terminal_and_its_reader_and_needs_no_standard_error(
    train, tmp_path
):
    run, terminal = start_on_terminal(train, "trap '' HUP;")  # which is what nohup does
    with run:
        assert run.stdout.readline().startswith(b"Data set synthetic: ")
        run.stdout.close()
        for descriptor in terminal:
            os.close(descriptor)
    assert run.returncode == 0
    lines = log_lines(tmp_path / "run.log")
    assert [line["step"][0] for line in lines if "loss" in line.get("data", {})] == [1, 2, 3]
    assert lines[-1]["data"]["test_users"] == 500


def test_a_training_whose_terminal_is_closed_saves_and_stops(train, tmp_path):
    run, terminal = start_on_terminal([*train, "--epochs", "1000000", "--save_every", "1e"])
    with run:
        wait_for(lambda: newest_step(tmp_path), run)
        run.stdout.close()
        for descriptor in terminal:
            os.close(descriptor)
    assert run.returncode == exit_code(signal.SIGHUP) == 129
    assert verify(checkpoints(tmp_path)[-1]).step == newest_step(tmp_path)


@pytest.mark.parametrize(
    "arguments", [("prepare_dataset.py", "--help"), PREPARE], ids=["help", "prepare"]
)
def test_a_program_whose_reader_has_left_ends_without_a_word(arguments, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is written at the end counts too
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *arguments, *([tmp_path] if arguments == PREPARE else [])],
        cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_standard_output_on_a_full_disk_is_reported_once_and_the_program_continues(tmp_path):
    done = in_shell(">/dev/full", *PREPARE, tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("Standard output cannot be written (No space left on device); ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "synthetic").is_dir()


def test_characters_that_a_console_lacks_are_escaped_in_output_help_and_errors(tmp_path):
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = in_shell("", *PREPARE, tmp_path / "données", env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert r"donn\xe9es" in done.stdout
    done = in_shell("", "main.py", "--train", "--epochs", "±", env=ascii_only)
    assert done.returncode == 2
    assert r"\xb1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sentence_for_a_closed_standard_error_does_not_land_elsewhere():
    done = in_shell("2>&-", "main.py", "--epochs", "many")
    assert (done.returncode, done.stdout) == (2, "")


def test_no_file_gets_a_descriptor_of_the_console():
    program = (
        "import json, os; from vae.utils.console import open_console; open_console();"
        "f = os.open(os.devnull, os.O_RDONLY);"
        "os.write(3, json.dumps([f > 3, *map(os.get_inheritable, range(3))]).encode())"
    )
    reader, writer = os.pipe()
    done = in_shell(f"<&- >&- 2>&- 3>&{writer} {writer}>&-", "-c", program, pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader) as read:
        assert json.load(read) == [True] * 4
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("line", "shown"),
    [("x" * 100, "x" * 100), ("x" * 101, "x" * 97 + "..."), ("\u754c" * 51, "\u754c" * 48 + "...")],
    ids=["fits", "long", "wide characters"],
)
def test_a_line_with_titles_is_cut_where_100_columns_end(line, shown):
    assert trimmed(line) == shown
