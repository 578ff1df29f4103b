"""--baselines: the model beside simpler ones, on the same users."""

import json

import pytest
from helpers import SMALL, run_main

ALL = ("--baselines", "popularity,ease,itemknn")


@pytest.fixture(scope="session")
def tested(run, build_once):
    """The folder of the results, and the end of a test of a trained model with all baselines."""

    def test(folder):
        _, flags, _ = run
        of_model = flags[: flags.index("--results_dir")]
        done = run_main(
            "--test", *of_model, *SMALL, *ALL, "--results_dir", folder, "--log_path", folder / "log"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return build_once("baselines", test)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_each_baseline_stands_in_the_table_the_results_the_log_and_the_report(tested):
    folder, stdout = tested
    values = results(folder)
    table = stdout[stdout.index("Test on") :].splitlines()
    assert table[1].split() == ["model", "most", "popular", "EASE", "item-kNN"]
    assert table[6].split() == ["-", "most", "popular", "-", "EASE", "-", "item-kNN"]
    log, report = (folder / "log").read_text(), (folder / "report.html").read_text()
    for name in ("popularity", "ease", "itemknn"):
        for key in (f"{name}_ndcg@100", f"test_minus_{name}_ndcg@100"):
            assert f"{values[key]:.5f} ± {values[f'{key}_se']:.5f}" in "\n".join(table)
            assert f"{values[key]:.5f} ± {values[f'{key}_se']:.5f}" in report
            assert f'"{key}": {values[key]}' in log
    assert values["ease_lambda"] in (100, 200, 500, 1000, 2000, 5000)


def test_a_difference_is_that_of_the_means_and_has_a_smaller_error_than_theirs(tested):
    values = results(tested[0])
    for name in ("popularity", "ease", "itemknn"):
        for metric in ("ndcg@100", "recall@20", "recall@50"):
            model, baseline = values[f"test_{metric}"], values[f"{name}_{metric}"]
            difference = values[f"test_minus_{name}_{metric}"]
            assert difference == pytest.approx(model - baseline, abs=1e-9)
            errors = [values[f"{kind}_{metric}_se"] for kind in ("test", name)]
            assert (
                0
                < values[f"test_minus_{name}_{metric}_se"]
                < sum(error**2 for error in errors) ** 0.5
            )


def test_the_lambda_of_ease_can_be_given(on_model, tmp_path):
    done = on_model(
        "--test", "--baselines", "ease", "--ease_lambda", 300, "--results_dir", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)["ease_lambda"] == 300
    assert "popularity_ndcg@100" not in results(tmp_path)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--test", "--baselines", "ease,svd"), "--baselines: 'ease,svd' is not"),
        (("--test", "--ease_lambda", 300), "--ease_lambda has no effect without"),
        (
            ("--test", "--baselines", "ease", "--ease_lambda", 0),
            "--ease_lambda 0.0 is out of range",
        ),
        (("--export", "x", "--baselines", "ease"), "--baselines has no effect without --test"),
    ],
)
def test_what_makes_no_sense_is_refused(flags, problem, on_model):
    done = on_model(*flags)
    assert done.returncode == 2
    assert problem in done.stderr


def test_a_matrix_larger_than_the_memory_is_refused_before_training(
    demo_data, tmp_path, monkeypatch
):
    monkeypatch.setattr("vae.models.training.memory.available_bytes", lambda workers: 5_000_000)
    done = run_main(
        "--train", "--test", "--dataset", "synthetic", "--data_dir", demo_data, *SMALL,
        "--checkpoint_dir", tmp_path / "ckpt", "--log_path", tmp_path / "log", *ALL,
    )  # fmt: skip
    assert done.returncode == 2
    assert "EASE takes at least" in done.stderr
    assert not list(tmp_path.iterdir())
