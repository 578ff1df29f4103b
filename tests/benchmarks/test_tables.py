"""The benchmarks that fill the README's tables: what they print, cache and repeat."""

import json
import sys

import pytest
from helpers import ROOT, output_of, run_script

from vae.version import __version__

SMALL = ("--dataset", "synthetic", "--hidden_dim", 16, "--latent_dim", 8)


def table_rows(text):
    """The cells of each row of a Markdown table, its head first."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_accuracy_over_seeds_is_printed_and_a_finished_run_is_not_repeated(demo_data, tmp_path):
    flags = (
        "--data_dir", demo_data, *SMALL, "--epochs", 1, "--batch_size_train", 1000,
        "--precision", "float32", "--work_dir", tmp_path, "--seeds", 2,
    )  # fmt: skip
    json_flag = ("--json", tmp_path / "accuracy.json")
    stdout = output_of(run_script("benchmarks/accuracy.py", *flags, *json_flag))
    head, _, row = table_rows(stdout)[:3]
    assert head == ["Workers", "Precision", "Seeds", "ndcg@100", "recall@20", "recall@50"]
    assert row[:3] == ["1", "float32", "2"]

    seeds = json.loads((tmp_path / "accuracy.json").read_text())["runs"]["1"]["float32"]
    first, second = (results["test_ndcg@100"] for results in seeds)
    assert first != second
    mean, deviation = row[3].split(" ± ")
    assert abs(float(mean) - (first + second) / 2) <= 1e-5
    assert abs(float(deviation) - abs(first - second) / 2**0.5) <= 1e-5

    assert not list(tmp_path.glob("*/checkpoints"))  # they were for resuming
    again = run_script("benchmarks/accuracy.py", *flags)
    assert again.stdout == stdout
    assert "main.py" not in again.stderr  # no command was started


def test_the_time_to_a_quality_is_read_from_the_log_of_each_run(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import accuracy
    import runs

    def train(folder, flags, precision, workers):
        """Three epochs of which the second is repeated, and validations of the last two."""
        high = 0.48 if "recvae" in flags else 0.45
        epochs = [
            {"train_epoch_time": 60.0}, {"train_epoch_time": 500.0}, {"ndcg@100": 0.9},
            {"train_epoch_time": 30.0}, {"ndcg@100": high, "valid_time": 100.0},
            {"train_epoch_time": 60.0}, {"ndcg@100": 0.4},
        ]  # fmt: skip
        entries = [("PARAMETER", {"epochs": 3})]
        entries += zip([[1], [2], [2], [2], [2], [3], [3]], epochs, strict=True)
        entries += [([], {"train_epoch_time": 1.0, "test_ndcg@100": 0.5})]
        lines = [{"type": "METADATA", "metric": "loss", "metadata": {}}]
        lines += [{"type": "LOG", "step": step, "data": data} for step, data in entries]
        folder.mkdir()
        (folder / "log").write_text("".join(f"DLLL {json.dumps(line)}\n" for line in lines))
        return {}

    monkeypatch.setattr(runs, "run", train)
    command = "accuracy --time_to 0.44,0.475 --seeds 1 --precision float32 --work_dir"
    monkeypatch.setattr(sys, "argv", [*command.split(), str(tmp_path)])
    assert accuracy.main() == 0
    head, _, *rows = table_rows(capsys.readouterr().out)
    assert head[4:6] == ["0.44 [min]", "0.475 [min]"]
    assert rows == [
        [__version__, model, "float32", "0", "1.50", reached, best, "1.50"]
        for model, reached, best in (
            ("Mult-VAE", "not reached (best 0.4500)", "0.4500"),
            ("RecVAE", "1.50", "0.4800"),
        )
    ]


@pytest.mark.slow
def test_models_and_baselines_are_compared(demo_data, tmp_path):
    flags = (
        "--compare", "--seeds", 1, "--data_dir", demo_data, *SMALL, "--epochs", 1,
        "--work_dir", tmp_path, "--json", tmp_path / "compared.json",
    )  # fmt: skip
    stdout = output_of(run_script("benchmarks/accuracy.py", *flags, timeout=600))
    head, _, *rows = table_rows(stdout)
    assert head[1:4] == ["ndcg@100", "recall@20", "recall@50"]
    rows, (*_, difference) = rows[:7], rows[7:]
    assert [row[0] for row in rows] == [
        *("most popular", "item-kNN", "EASE"),
        *("Mult-VAE", "Mult-VAE + EASE", "RecVAE", "RecVAE + EASE"),
    ]
    (seed,) = json.loads((tmp_path / "compared.json").read_text())["runs"]["RecVAE"]
    assert rows[-1][1] == f"{seed['blended']['test_ndcg@100']:.4f}"
    assert rows[2][1] == f"{seed['alone']['ease_ndcg@100']:.4f}"
    value = f"{seed['blended']['test_minus_unblended_ndcg@100']:+.4f}"
    assert difference[:3] == ["RecVAE + EASE", "RecVAE", value]
    assert not list(tmp_path.glob("*/checkpoints"))


@pytest.mark.slow
def test_inference_has_a_row_for_each_batch_size_and_runs_of_other_flags_are_refused(
    demo_data, tmp_path
):
    flags = (
        "--data_dir", demo_data, *SMALL, "--precision", "float32", "--work_dir", tmp_path,
        "--batch_sizes", "1,8", "--json", tmp_path / "inference.json",
    )  # fmt: skip
    stdout = output_of(run_script("benchmarks/inference.py", *flags))
    assert [row[0] for row in table_rows(stdout)] == ["Batch size", "---:", "1", "8"]
    document = json.loads((tmp_path / "inference.json").read_text())
    assert document["statistics"]["float32"]["batch_8_mean_latency"] > 0
    assert document["machine"]["cores"] > 0

    refused = run_script("benchmarks/inference.py", *flags, "--top_results", 5)
    assert refused.returncode == 1
    assert "name another --work_dir" in refused.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("mpi")
def test_scaling_splits_the_batch_and_compares_with_the_smallest_job(demo_data, tmp_path):
    done = run_script(
        "benchmarks/scaling.py", "--data_dir", demo_data, *SMALL, "--workers", "1,2", "--precision",
        "float32", "--epochs", 2, "--batch_size_train", 1000, "--work_dir", tmp_path,
        "--parallel", "users,items",
        "--json", tmp_path / "scaling.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = table_rows(done.stdout)[2:]
    assert one[:2] == ["1", "1,000"]
    assert one[-1] == "1.00"
    assert two[:2] == ["2", "500"]
    found = json.loads((tmp_path / "scaling.json").read_text())
    throughput = found["throughput"]["float32, items"]
    assert two[-1] == f"{throughput['2'] / throughput['1']:.2f}"
    # Of users all weights. Of items sums per user: 16 units of both hidden layers, a maximum and a
    # sum of each of two workers; and once in ten steps a validation of 500 users.
    users, items = (found["bytes_per_step"][f"float32, {name}"]["2"] for name in ("users", "items"))
    weights = 1200 * (16 + 16 + 1) + 16 + 16 * 16 + 16 + 8 * 16 + 16
    assert users == 4 * (weights + 5)
    per_user, validation = 16 + 16 + 2 * 2, 500 * (16 + 2 * 2 * 100)
    assert items == pytest.approx(4 * (4953 / 5 * per_user + 3 + validation / 10))
