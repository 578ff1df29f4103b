"""--baselines: the model beside simpler ones, on the same users."""

import json
from itertools import product

import pytest
from helpers import METRICS, SMALL, error_of, flags, output_of, run_main

from vae.baselines.ease_choice import DROPOUTS, LAMBDAS

NAMES = ("popularity", "ease", "itemknn")
ALL = ("--baselines", ",".join(NAMES))


@pytest.fixture(scope="session")
def tested(run, on_model, build_once):
    """The folder of a test with all baselines, its standard output and its results."""

    def test(folder):
        results_dir, log = ("--results_dir", folder), ("--log_path", folder / "log")
        return output_of(on_model("--test", *ALL, *results_dir, *log))

    folder, stdout = build_once("baselines", test)
    return folder, stdout, json.loads((folder / "results.json").read_text())


def test_each_baseline_stands_in_the_table_the_results_the_log_and_the_report(tested):
    folder, stdout, results = tested
    table = stdout[stdout.index("Test on") :]
    head, differences = (table.splitlines()[line].split() for line in (1, 6))
    assert head == ["model", "most", "popular", "EASE", "item-kNN"]
    assert differences == ["-", "most", "popular", "-", "EASE", "-", "item-kNN"]
    log, report = (folder / "log").read_text(), (folder / "report.html").read_text()
    for name in NAMES:
        for key in (f"{name}_ndcg@100", f"test_minus_{name}_ndcg@100"):
            cell = f"{results[key]:.5f} ± {results[f'{key}_se']:.5f}"
            assert cell in table
            assert cell in report
            assert f'"{key}": {results[key]}' in log
    assert (results["ease_lambda"], results["ease_dropout"]) in product(LAMBDAS, DROPOUTS)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", NAMES)
def test_a_difference_is_that_of_the_means_and_has_a_smaller_error_than_theirs(
    name, metric, tested
):
    results = tested[2]
    model, baseline, difference = (
        (results[key], results[f"{key}_se"])
        for key in (f"test_{metric}", f"{name}_{metric}", f"test_minus_{name}_{metric}")
    )
    assert difference[0] == pytest.approx(model[0] - baseline[0], abs=1e-9)
    assert 0 < difference[1] ** 2 < model[1] ** 2 + baseline[1] ** 2


def test_a_matrix_larger_than_the_memory_is_refused_before_training(
    demo_data, tmp_path, monkeypatch
):
    monkeypatch.setattr("vae.models.training.memory.available_bytes", lambda workers: 5_000_000)
    done = run_main("--train", "--test", *flags(demo_data, tmp_path, *SMALL, *ALL))
    assert "EASE takes 0.0 GB of memory" in error_of(done)
    assert not list(tmp_path.iterdir())
