"""How a program ends: a sentence and an exit code, never a stack trace."""

import re
import subprocess
import sys
from functools import partial

import pytest
from helpers import ROOT, run_script

from vae.cli import exit_code_of
from vae.errors import UserError


@pytest.mark.parametrize(
    ("problem", "sentence", "code"),
    [
        (UserError("ratings.csv: is empty."), "ratings.csv: is empty.", 2),
        (UserError("the loss is not finite.", exit_code=1), "the loss is not finite.", 1),
        (OSError(28, "No space left on device", "x"), "No space left on device: 'x'.", 1),
        (MemoryError(), "out of memory.", 1),
        (
            RuntimeError("can't start new thread"),
            "can't start new thread; raise the limit on processes (ulimit -u).",
            1,
        ),
        (KeyboardInterrupt(), "", 130),
    ],
    ids=["input", "run", "disk", "memory", "threads", "ctrl-c"],
)
def test_what_no_programmer_did_is_no_stack_trace(problem, sentence, code, capsys):
    def run():
        raise problem

    assert exit_code_of("main.py", run) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(sentence)
    if sentence:
        assert lines[0].startswith("main.py: error: ")
        assert sentence in lines[0]


@pytest.mark.parametrize(
    ("script", "flags"),
    [("main.py", ("--train",)), ("prepare_dataset.py", ("--dataset", "synthetic"))],
)
def test_without_the_environment_a_sentence_says_how_to_create_it(script, flags, tmp_path):
    """A Python without site-packages has none of the modules."""
    bare = [sys.executable, "-S", str(ROOT / script)]
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, check=False)
    done = run([*bare, *flags])
    assert done.returncode == 2
    assert re.fullmatch(
        rf"{script}: error: the module '(numpy|pyarrow|tensorflow|tqdm)' is not installed in this "
        rf"Python \(.*\); run 'make env' once, then \.venv/bin/python {script} \.\.\.\n",
        done.stderr,
    )
    assert not any(tmp_path.iterdir())
    done = run([*bare, "--help"])
    assert done.returncode == 0
    assert flags[0] in done.stdout


@pytest.mark.parametrize("script", ["main.py", "prepare_dataset.py"])
def test_ctrl_c_in_the_first_moments_is_no_stack_trace(script, tmp_path):
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt")  # while modules are imported
    done = run_script(script, "--help", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_search_without_optuna_says_how_to_install_it():
    command = [sys.executable, "-S", str(ROOT / "scripts/sweep.py"), "--trials", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"sweep.py: error: the module 'optuna' is not installed in this Python \(.*\); install "
        r"requirements-test-all\.txt\.\n",
        done.stderr,
    )


@pytest.mark.parametrize("name", ["vae.modles.train", "vae"])
def test_a_missing_module_of_the_program_itself_is_not_hidden(name):
    def run():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with pytest.raises(ModuleNotFoundError):
        exit_code_of("main.py", run)


@pytest.mark.parametrize("error", [AssertionError, RuntimeError])
def test_a_mistake_of_the_program_itself_is_not_hidden(error):
    def run():
        raise error

    with pytest.raises(error):
        exit_code_of("main.py", run)
