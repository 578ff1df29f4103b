"""How a program ends: a sentence and an exit code, never a stack trace."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT, run_script

from vae.cli import exit_code_of
from vae.errors import UserError

MAKE_ENV = r"run 'make env' once, then \.venv/bin/python {script} \.\.\."


def raised(error):
    def run():
        raise error

    return run


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
    assert exit_code_of("main.py", raised(problem)) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(sentence)
    assert all(line.startswith("main.py: error: ") and sentence in line for line in lines)


@pytest.mark.parametrize(
    "error",
    [
        *(AssertionError(), RuntimeError()),
        *(ModuleNotFoundError(name, name=name) for name in ("vae.modles.train", "vae")),
    ],
)
def test_a_mistake_of_the_program_itself_is_not_hidden(error):
    with pytest.raises(type(error)):
        exit_code_of("main.py", raised(error))


@pytest.mark.parametrize(
    ("script", "flags", "code", "modules", "fix"),
    [
        ("main.py", ["--train"], 2, "numpy|pyarrow|tensorflow|tqdm", MAKE_ENV),
        ("prepare_dataset.py", ["--dataset", "synthetic"], 2, "numpy|pyarrow|tqdm", MAKE_ENV),
        ("scripts/sweep.py", ["--trials=1"], 1, "optuna", r"install requirements-test-all\.txt\."),
    ],
)
def test_without_the_environment_a_sentence_says_how_to_create_it(
    script, flags, code, modules, fix, tmp_path
):
    """A Python without site-packages has none of the modules."""
    program, bare = script.split("/")[-1], [sys.executable, "-S", str(ROOT / script)]
    done = subprocess.run([*bare, *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    sentence = rf"{program}: error: the module '({modules})' is not installed in this Python \(.*\)"
    assert re.fullmatch(rf"{sentence}; {fix.format(script=script)}\n", done.stderr)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["main.py", "prepare_dataset.py"])
def test_help_needs_no_environment_and_ctrl_c_in_the_first_moments_is_no_stack_trace(
    script, tmp_path
):
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / script), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--dataset" in done.stdout
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt")  # while modules are imported
    done = run_script(script, "--help", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
