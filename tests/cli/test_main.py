"""main.py from the command line: train, test and benchmark on real files."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers import (
    METRICS,
    SMALL,
    assert_close_weights,
    checkpoints,
    error_of,
    flags,
    log_lines,
    losses,
    output_of,
    run_main,
    run_prepare,
)

from vae import config
from vae.metrics import ranking

# They read and write the results of one run.
pytestmark = pytest.mark.xdist_group("main")


def results(folder):
    return json.loads((folder / "results/results.json").read_text())


def test_the_trained_model_is_well_ahead_of_popularity_and_the_table_shows_both(run):
    summary = results(run[0])
    for metric in METRICS:
        model, popularity = (summary[f"{kind}_{metric}"] for kind in ("test", "popularity"))
        assert model > 1.5 * popularity
        line = next(row for row in run[2].stdout.splitlines() if row.startswith(metric))
        assert f"{model:.5f}" in line
        assert f"{popularity:.5f}" in line


def test_the_log_has_parameters_units_epochs_validations_and_a_summary(run):
    lines = log_lines(run[0] / "run.log")
    logs = [line for line in lines if line["type"] == "LOG"]
    assert {"timestamp", "datetime", "elapsedtime", "type", "step", "data"} == set(logs[0])
    assert logs[0]["step"] == "PARAMETER"
    assert logs[0]["data"]["epochs"] == 6
    units = {x["metric"]: x["metadata"] for x in lines if x["type"] == "METADATA"}
    assert units["train_throughput"]["unit"] == "users/s"
    epochs = [line for line in logs if "train_epoch_time" in line["data"]]
    assert [line["step"] for line in epochs] == [[n] for n in range(1, 7)]
    parts = {"train_throughput", "loss", "neg_log_likelihood", "kl_divergence", "kl_weight"}
    assert parts <= set(epochs[0]["data"])
    validations = [line for line in logs if "valid_time" in line["data"]]
    assert [line["step"] for line in validations] == [[2], [4], [6]]
    assert set(METRICS) <= set(validations[0]["data"])
    assert logs[-1]["step"] == []
    assert {
        "mean_training_throughput", "mean_inference_throughput",
        "final_ndcg@100", "final_recall@20", "final_recall@50",
        "batch_1_mean_throughput", "batch_1_mean_latency",
        "batch_1_p90_latency", "batch_1_p95_latency", "batch_1_p99_latency",
    } <= set(logs[-1]["data"])  # fmt: skip


def test_the_loss_falls_and_args_and_timelines_are_written(run):
    folder = run[0]
    assert losses(folder)[6] < 0.95 * losses(folder)[1]
    args = json.loads((folder / "results/args.json").read_text())
    assert args["hidden_dim"] == 64
    for what in ("train", "inference"):
        timeline = json.loads((folder / f"results/timeline_{what}.json").read_text())
        assert any("MatMul" in event["name"] for event in timeline["traceEvents"])


def test_test_alone_reports_the_same_metrics_and_leaves_the_checkpoints_untouched(run):
    folder, of_run, _ = run
    before = {path: path.stat().st_mtime_ns for path in (folder / "ckpt").rglob("*")}
    expected = results(folder)
    log_length = len(log_lines(folder / "run.log"))
    # Fewer results than a metric's cutoff must not falsify the metric.
    output_of(run_main("--test", *of_run, *SMALL, "--top_results", 5))
    for metric in METRICS:
        assert results(folder)[f"test_{metric}"] == expected[f"test_{metric}"]
    assert {path: path.stat().st_mtime_ns for path in (folder / "ckpt").rglob("*")} == before
    assert len(log_lines(folder / "run.log")) > log_length  # appended, not overwritten


def test_a_seed_fixes_a_run_and_another_seed_changes_it(run, demo_data, tmp_path):
    first = {epoch: losses(run[0])[epoch] for epoch in (1, 2)}
    for seed in (0, 1):
        more = (*SMALL, "--epochs", 2, "--seed", seed)
        output_of(run_main("--train", *flags(demo_data, tmp_path / str(seed), *more)))
        assert (losses(tmp_path / str(seed)) == first) == (seed == 0)


@pytest.fixture
def damaged(run, tmp_path):
    """A copy of the run's checkpoints, in the newest of which a byte has changed."""
    shutil.copytree(run[0] / "ckpt", tmp_path / "ckpt")
    data = checkpoints(tmp_path)[-1] / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    return data


def test_a_checkpoint_of_another_model_or_of_other_data_or_damaged_is_refused(
    run, damaged, tmp_path
):
    output_of(run_prepare("--dataset", "synthetic", "--data_dir", tmp_path, "--seed", 1))
    for more, sentence in (
        (("--latent_dim", 8), "latent_dim is 16 in the checkpoint, 8 now"),
        (("--data_dir", tmp_path), "other data"),
        (("--checkpoint_dir", damaged.parents[1]), str(damaged)),
    ):
        assert sentence in error_of(run_main("--test", *run[1], *SMALL, *more))


@pytest.mark.parametrize(
    ("mode", "more", "sentence"),
    [
        ("--test", ("--data_dir", "prepared"), "--checkpoint_dir"),
        ("--test", ("--data_dir", "prepared", "--checkpoint_dir", "none"), "holds no checkpoint"),
        ("--train", ("--data_dir", "."), "prepare_dataset.py"),
        (
            "--train",
            (
                *("--data_dir", "prepared", "--hidden_dim", 2**20, "--latent_dim", 2**20),
                *("--checkpoint_dir", "none"),
            ),
            "--hidden_dim 1048576 and --latent_dim 1048576: with 1,200 items the model takes at",
        ),
    ],
    ids=["no-folder", "no-checkpoint", "no-data", "no-memory"],
)
def test_what_is_missing_is_said_before_training(
    mode, more, sentence, demo_data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prepared").symlink_to(demo_data)
    code, out, err = run_main(mode, "--dataset", "synthetic", *more)
    assert code == 2
    assert sentence in err
    if mode == "--train":
        assert not out
        assert [path.name for path in tmp_path.iterdir()] == ["prepared"]
    assert not (tmp_path / "none").exists()


def test_a_batch_larger_than_the_data_is_one_step_of_all_users(demo_data, tmp_path):
    """With or without XLA, whatever the activation, under L2."""
    users = len(np.load(demo_data / "synthetic/preprocessed/data-0/train_user_ids.npy"))
    for name, *more in (("larger", 24576, "--xla"), ("exact", users)):
        objective = ("--lam", 0.001, "--activation", "relu", "--batch_size_train", *more)
        more = (*SMALL, "--epochs", 3, *objective)
        output_of(run_main("--train", *flags(demo_data, tmp_path / name, *more)))
        assert [path.name for path in checkpoints(tmp_path / name)][-1] == "step-00000003"
    assert_close_weights(tmp_path / "larger", tmp_path / "exact")


def test_movielens_is_learnt_better_than_popularity(ratings_of_movielens, tmp_path):
    name = "ml-latest-small"
    more = ("--ratings", ratings_of_movielens, "--heldout_users", 60, "--data_dir", tmp_path)
    output_of(run_prepare("--dataset", name, *more))
    more = (
        "--epochs", 30, "--batch_size_train", 100, "--lr", 0.001, "--total_anneal_steps", 1000,
        "--anneal_cap", 0.2, "--results_dir", tmp_path / "results", "--validation_step", 30,
    )  # fmt: skip
    output_of(run_main("--train", "--test", *flags(tmp_path, tmp_path, *more, dataset=name)))
    summary = results(tmp_path)
    for metric in METRICS:
        assert summary[f"test_{metric}"] > summary[f"popularity_{metric}"]


def test_a_metric_and_an_encoder_are_added_with_a_line_each(demo_data, tmp_path, monkeypatch):
    monkeypatch.setitem(ranking.METRICS, "recall@10", ranking.Metric(ranking.recall, 10, "#cc79a7"))
    monkeypatch.setitem(config.ENCODERS, "wide", "Wide-VAE (A. Uthor 2026)")
    outputs = ("--results_dir", tmp_path / "results", "--export", tmp_path / "served")
    more = (*SMALL, "--epochs", 1, "--encoder", "wide", *outputs)
    stdout = output_of(run_main("--train", "--test", *flags(demo_data, tmp_path, *more)))
    for prefix in ("final_", "test_", "popularity_", "test_minus_popularity_"):
        assert {f"{prefix}recall@10", f"{prefix}recall@10_se"} <= set(results(tmp_path))
    assert re.search(r"^recall@10 +0\.\d+ ± ", stdout, re.MULTILINE)
    assert "<th>recall@10</th>" in (tmp_path / "results/report.html").read_text()
    assert "Wide-VAE (A. Uthor 2026)" in (tmp_path / "served/model_card.md").read_text()
