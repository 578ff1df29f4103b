"""main.py from the command line: train, test and benchmark on real files."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from helpers import (
    METRICS,
    SMALL,
    assert_close_weights,
    checkpoints,
    log_lines,
    run_main,
    run_prepare,
)

from vae import config
from vae.metrics import ranking

# They read and write the results of one run.
pytestmark = pytest.mark.xdist_group("main")


def results(folder):
    return json.loads((folder / "results/results.json").read_text())


def test_the_trained_model_is_well_ahead_of_popularity(run):
    summary = results(run[0])
    for metric in METRICS:
        assert summary[f"test_{metric}"] > 1.5 * summary[f"popularity_{metric}"]


def test_the_table_for_people_shows_the_model_beside_popularity(run):
    summary = results(run[0])
    line = next(row for row in run[2].stdout.splitlines() if row.startswith("ndcg@100"))
    assert f"{summary['test_ndcg@100']:.5f}" in line
    assert f"{summary['popularity_ndcg@100']:.5f}" in line


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


def test_the_loss_falls(run):
    losses = [
        x["data"]["loss"] for x in log_lines(run[0] / "run.log") if "loss" in x.get("data", {})
    ]
    assert losses[-1] < 0.95 * losses[0]


def test_args_and_timelines_are_written(run):
    args = json.loads((run[0] / "results/args.json").read_text())
    assert args["hidden_dim"] == 64
    for what in ("train", "inference"):
        timeline = json.loads((run[0] / f"results/timeline_{what}.json").read_text())
        assert any("MatMul" in event["name"] for event in timeline["traceEvents"])


def test_test_alone_reports_the_same_metrics_and_leaves_the_checkpoints_untouched(run):
    folder, flags, _ = run
    before = {path: path.stat().st_mtime_ns for path in (folder / "ckpt").rglob("*")}
    expected = results(folder)
    log_length = len(log_lines(folder / "run.log"))
    # Fewer results than a metric's cutoff must not falsify the metric.
    done = run_main("--test", *flags, *SMALL, "--top_results", 5)
    assert done.returncode == 0, done.stderr
    assert {m: results(folder)[f"test_{m}"] for m in METRICS} == {
        m: expected[f"test_{m}"] for m in METRICS
    }
    assert {path: path.stat().st_mtime_ns for path in (folder / "ckpt").rglob("*")} == before
    assert len(log_lines(folder / "run.log")) > log_length  # appended, not overwritten


def test_a_seed_fixes_a_run_and_another_seed_changes_it(run, tmp_path):
    folder, _, _ = run
    data = log_lines(folder / "run.log")
    config = next(x["data"] for x in data if x.get("step") == "PARAMETER")
    first = [x["data"]["loss"] for x in data if "loss" in x.get("data", {})][:2]
    losses = {}
    for seed in (0, 1):
        log = tmp_path / f"{seed}.log"
        done = run_main(
            "--train", "--dataset", "synthetic", "--data_dir", config["data_dir"],
            "--log_path", log, *SMALL, "--epochs", 2, "--seed", seed,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        losses[seed] = [x["data"]["loss"] for x in log_lines(log) if "loss" in x.get("data", {})]
    assert losses[0] == first
    assert losses[1] != first


def test_a_checkpoint_of_another_model_is_refused(run):
    done = run_main("--test", *run[1], *SMALL, "--latent_dim", 8)
    assert done.returncode == 2
    assert "latent_dim is 16 in the checkpoint, 8 now" in done.stderr


def test_a_checkpoint_of_other_data_is_refused(run, tmp_path):
    done = run_prepare("--dataset", "synthetic", "--data_dir", tmp_path, "--seed", 1)
    assert done.returncode == 0, done.stderr
    done = run_main("--test", *run[1], *SMALL, "--data_dir", tmp_path)
    assert done.returncode == 2
    assert "other data" in done.stderr


def test_a_damaged_checkpoint_is_named(run, tmp_path):
    shutil.copytree(run[0] / "ckpt", tmp_path / "ckpt")
    newest = max((tmp_path / "ckpt").iterdir())
    data = newest / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    done = run_main("--test", *run[1], *SMALL, "--checkpoint_dir", tmp_path / "ckpt")
    assert done.returncode == 2
    assert str(data) in done.stderr


def test_without_a_trained_model_a_test_is_an_error(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--dataset", "synthetic", "--data_dir", run[1][3])
    done = run_main("--test", *flags)
    assert done.returncode == 2
    assert "--checkpoint_dir" in done.stderr
    done = run_main("--test", *flags, "--checkpoint_dir", tmp_path / "none")
    assert done.returncode == 2
    assert "holds no checkpoint" in done.stderr
    assert not (tmp_path / "none").exists()


def test_unprepared_data_are_an_error_that_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_main("--train", "--data_dir", tmp_path)
    assert done.returncode == 2
    assert "prepare_dataset.py" in done.stderr


def test_a_batch_larger_than_the_data_is_one_step_of_all_users(demo_data, tmp_path):
    """With or without XLA, whatever the activation, under L2."""
    users = len(np.load(demo_data / "synthetic/preprocessed/train_user_ids.npy"))
    for name, *more in (("larger", 24576, "--xla"), ("exact", users)):
        done = run_main(
            "--train", "--dataset", "synthetic", "--data_dir", demo_data, "--epochs", 3, *SMALL,
            "--lam", 0.001, "--activation", "relu", "--batch_size_train", *more,
            "--checkpoint_dir", tmp_path / name / "ckpt", "--log_path", os.devnull,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [path.name for path in checkpoints(tmp_path / name)][-1] == "step-00000003"
    assert_close_weights(tmp_path / "larger", tmp_path / "exact")


def test_movielens_is_learnt_better_than_popularity(ratings_of_movielens, tmp_path):
    done = run_prepare(
        "--dataset", "ml-latest-small", "--ratings", ratings_of_movielens,
        "--heldout_users", 60, "--data_dir", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_main(
        "--train", "--test", "--dataset", "ml-latest-small", "--data_dir", tmp_path,
        "--epochs", 30, "--batch_size_train", 100, "--lr", 0.001, "--total_anneal_steps", 1000,
        "--anneal_cap", 0.2, "--results_dir", tmp_path / "results", "--log_path", tmp_path / "log",
        "--validation_step", 30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = results(tmp_path)
    for metric in METRICS:
        assert summary[f"test_{metric}"] > summary[f"popularity_{metric}"]


def test_a_model_larger_than_any_memory_is_refused_before_anything_is_written(demo_data, tmp_path):
    code, out, err = run_main(
        "--train", "--dataset", "synthetic", "--data_dir", demo_data,
        "--hidden_dim", 2**20, "--latent_dim", 2**20,
        "--checkpoint_dir", tmp_path / "ckpt", "--log_path", tmp_path / "run.log",
    )  # fmt: skip
    assert code == 2
    assert "--hidden_dim 1048576 and --latent_dim 1048576: with 1,200 items" in err
    assert "lower --hidden_dim or --latent_dim." in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_metric_and_an_encoder_are_added_with_a_line_each(demo_data, tmp_path, monkeypatch):
    metric = ranking.Metric(ranking.recall, 10, "#cc79a7")
    monkeypatch.setitem(ranking.METRICS, "recall@10", metric)
    monkeypatch.setitem(config.ENCODERS, "wide", "Wide-VAE (A. Uthor 2026)")
    done = run_main(
        "--train", "--test", "--dataset", "synthetic", "--data_dir", demo_data, *SMALL,
        "--epochs", 1, "--encoder", "wide", "--checkpoint_dir", tmp_path / "ckpt",
        "--results_dir", tmp_path / "results", "--export", tmp_path / "served",
        "--log_path", tmp_path / "log",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for prefix in ("final_", "test_", "popularity_", "test_minus_popularity_"):
        assert {f"{prefix}recall@10", f"{prefix}recall@10_se"} <= set(results(tmp_path))
    assert re.search(r"^recall@10 +0\.\d+ ± ", done.stdout, re.MULTILINE)
    assert "<th>recall@10</th>" in (tmp_path / "results/report.html").read_text()
    assert "Wide-VAE (A. Uthor 2026)" in (tmp_path / "served/model_card.md").read_text()
