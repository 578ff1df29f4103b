"""Fixtures shared by the end-to-end tests: they run the scripts as a user does."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).parents[1]
# Scripts and benchmarks import the package of this checkout, whichever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

SMALL = ("--hidden_dim", 64, "--latent_dim", 16, "--batch_size_train", 200, "--lr", 0.005)
QUICK = (*SMALL, "--epochs", 6, "--validation_step", 2, "--warm_up_epochs", 1)


def run_script(script, *flags, cwd=ROOT, env=None, timeout=240, launcher=()):
    """Runs a script of the repository with flags; returns the finished process."""
    command = [*launcher, sys.executable, str(ROOT / script), *map(str, flags)]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


def log_lines(path):
    """The JSON objects of a log file; a line that is no DLLL line is an error."""
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL ") for line in lines)
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory):
    """A folder with the synthetic demo set, prepared."""
    folder = tmp_path_factory.mktemp("data")
    done = run_script("prepare_dataset.py", "--dataset", "synthetic", "--data_dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def run(demo_data, tmp_path_factory):
    """Flags of one finished run that trained, tested and measured inference."""
    folder = tmp_path_factory.mktemp("run")
    flags = (
        "--dataset", "synthetic", "--data_dir", demo_data, "--checkpoint_dir", folder / "ckpt",
        "--results_dir", folder / "results", "--log_path", folder / "run.log",
    )  # fmt: skip
    modes = ("--train", "--test", "--inference_benchmark", "--trace")
    done = run_script("main.py", *modes, *flags, *QUICK)
    assert done.returncode == 0, done.stderr
    return folder, flags, done


@pytest.fixture(scope="session")
def on_model(run):
    """Runs main.py with further flags on the finished run's data and best model."""
    _, flags, _ = run
    of_model = flags[: flags.index("--results_dir")]
    return partial(run_script, "main.py", *of_model, *SMALL, "--log_path", os.devnull)


@pytest.fixture
def here(capsys, monkeypatch):
    """Runs main.py in the tests' process: exit code, standard output, standard error."""
    from main import main  # not above: most of the tests do not need it

    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments)])
        code = main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture(scope="session")
def ratings_of_movielens():
    """The real ml-latest-small ratings, which are not part of the repository."""
    path = Path(
        os.environ.get("VAE_CF_ML_SMALL", ROOT.parent / "shared/data/ml-latest-small/ratings.csv")
    )
    if not path.is_file():
        pytest.skip("ml-latest-small is not here; name its ratings.csv in VAE_CF_ML_SMALL")
    return path
