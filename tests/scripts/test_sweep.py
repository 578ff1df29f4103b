"""scripts/sweep.py: trials that are real runs, pruned for real, in a search that can be stopped."""

import csv
import importlib.util
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, log_lines, run_script, wait_for

pytestmark = pytest.mark.slow

TINY = (
    "--hidden_dim", "16", "--latent_dim", "4", "--batch_size_train=500", "--validation_step", "5",
    "--dataset", "synthetic",
)  # fmt: skip
SEARCHED = {"lr", "anneal_cap", "total_anneal_steps", "dropout"}


@pytest.fixture(scope="module")
def sweep():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "scripts/sweep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(folder):
    with (folder / "trials.csv").open() as file:
        return [*csv.DictReader(file)]


def test_an_interrupted_search_goes_on_with_the_trial_that_was_running(demo_data, tmp_path):
    flags = [
        "--trials", "3", "--work_dir", str(tmp_path), *TINY, "--epochs", "60",
        "--data_dir", str(demo_data),
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "scripts/sweep.py", *flags], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as search:
        wait_for((tmp_path / "trial-1.log").exists, search)
        search.send_signal(signal.SIGTERM)
    assert search.returncode == 143
    assert [row["trial"] for row in rows(tmp_path)] == ["0"]
    done = run_script("scripts/sweep.py", *flags)
    assert done.returncode == 0, done.stderr
    assert {row["trial"] for row in rows(tmp_path)} == {"0", "2", "3"}
    values = [float(row["ndcg@100"]) for row in rows(tmp_path)]
    assert values == sorted(values, reverse=True)
    assert all(row["state"] == "complete" and row["lr"] for row in rows(tmp_path))
    import optuna  # not above: make test does without it

    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert set(study.best_params) == SEARCHED  # what was given was not searched for
    assert study.trials[1].state == optuna.trial.TrialState.FAIL
    assert study.trials[2].params == study.trials[1].params
    best = done.stdout.splitlines()[-1]
    assert best.startswith("python main.py --train --lr ")
    assert f"--dropout {study.best_params['dropout']:.6g} --hidden_dim 16" in best
    other = run_script("scripts/sweep.py", *flags, "--seed", 1)
    assert "name another --work_dir" in other.stderr


def test_a_kl_weight_per_item_takes_the_place_of_the_annealing(sweep):
    assert sweep.space_of([]) == sweep.SPACE
    for flags in (["--model", "recvae"], ["--preset=recvae"], ["--kl_per_item", "0.01"]):
        names = set(sweep.space_of(flags))
        assert names == {*sweep.SPACE, "kl_per_item"} - {"anneal_cap", "total_anneal_steps"}
    assert sweep.space_of(["--no-such-flag"]) == sweep.SPACE


def test_a_pruned_trial_is_stopped_at_once(sweep, demo_data, tmp_path):
    import optuna

    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(lower=1))
    flags = [*TINY, "--epochs", "1000000", "--data_dir", str(demo_data)]
    sweep.run_trial(study, tmp_path, flags)
    (trial,) = study.trials
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert [*trial.intermediate_values] == [5]
    assert log_lines(tmp_path / "trial-0.log")[-1]["step"] != []  # no summary: it did not finish


def test_flags_that_main_refuses_end_the_search_with_its_sentence(tmp_path):
    done = run_script("scripts/sweep.py", "--work_dir", tmp_path, "--epochs", 0)
    assert done.returncode == 1
    assert done.stderr.startswith("main.py: error: --epochs 0 is out of range")
