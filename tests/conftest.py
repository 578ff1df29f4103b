"""Fixtures shared by the tests of whole runs, and the profile of the property-based ones.

Under pytest-xdist every process has session fixtures of its own: ``build_once`` makes what takes
long once per test run.
"""

import fcntl
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from helpers import ROOT, SMALL, Done, output_of, run_main, run_prepare
from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Scripts and benchmarks import the package of this checkout, whichever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

QUICK = (*SMALL, "--epochs", 6, "--validation_step", 2, "--warm_up_epochs", 1)


@pytest.fixture(scope="session")
def build_once(tmp_path_factory):
    """Fills a folder in the first test process that asks; all of them get it and the result."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # which the processes share

    def build(name, fill):
        folder, result = root / name, root / f"{name}.json"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not result.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a failed attempt left
                folder.mkdir()
                result.write_text(json.dumps(fill(folder)))
        return folder, json.loads(result.read_text())

    return build


@pytest.fixture(scope="session")
def demo_data(build_once):
    """A folder with the synthetic demo set, prepared."""

    def prepare(folder):
        output_of(run_prepare("--dataset", "synthetic", "--data_dir", folder))

    return build_once("data", prepare)[0]


@pytest.fixture(scope="session")
def run(demo_data, build_once):
    """Folder, flags and end of a run that trained, tested and measured inference."""

    def flags(folder):
        return (
            "--dataset", "synthetic", "--data_dir", demo_data, "--checkpoint_dir", folder / "ckpt",
            "--results_dir", folder / "results", "--log_path", folder / "run.log",
        )  # fmt: skip

    def train(folder):
        modes = ("--train", "--test", "--inference_benchmark", "--trace")
        done = run_main(*modes, *flags(folder), *QUICK)
        assert done.returncode == 0, done.stderr
        return done

    folder, done = build_once("run", train)
    return folder, flags(folder), Done(*done)


@pytest.fixture(scope="session")
def on_model(run):
    """Runs main.py with further flags on the finished run's data and best model."""
    _, flags, _ = run
    of_model = flags[: flags.index("--results_dir")]
    return partial(run_main, *of_model, *SMALL, "--log_path", os.devnull)


@pytest.fixture(scope="session")
def ratings_of_movielens():
    """The real ml-latest-small ratings, which are not part of the repository."""
    default = ROOT.parent / "shared/data/ml-latest-small/ratings.csv"
    path = Path(os.environ.get("VAE_CF_ML_SMALL", default))
    if not path.is_file():
        pytest.skip("ml-latest-small is not here; name its ratings.csv in VAE_CF_ML_SMALL")
    return path
