"""Train and test with several seeds: mean and spread of the metrics.

::

    python benchmarks/accuracy.py --json accuracy.json
    python benchmarks/accuracy.py --seeds 5 --dataset synthetic --data_dir ./demo --epochs 60
    python benchmarks/accuracy.py --compare --seeds 3 --dataset ml-1m --data_dir ./data
    python benchmarks/accuracy.py --time_to 0.44,0.475 --seeds 1 --dataset ml-1m --data_dir ./data

By default the recipe is trained in float32 and with --amp, and the model at the end of training is
tested. With --compare, Mult-VAE, RecVAE, the blends of both with EASE and the baselines are tested
instead: the presets small and recvae, the best checkpoint by validation. With --time_to, both
presets are trained in each precision, and the table has the minutes until validation NDCG@100 first
reaches each value: minutes of training as the log has them, without startup and validation.

An interrupted command can be rerun: completed runs are not repeated, and the interrupted one
resumes.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import sys
from pathlib import Path

import runs

from vae.config import BASELINES as TITLES
from vae.config import parse_flags
from vae.metrics.ranking import METRICS, SELECTION_METRIC
from vae.version import __version__

Results = dict[int, dict[str, list[runs.Results]]]
"""Number of workers -> precision -> results of each seed."""

PRESETS = {"Mult-VAE": "small", "RecVAE": "recvae"}
BASELINES = ("popularity", "itemknn", "ease")


def main() -> int:
    """Run what is missing and print the tables; return the exit code."""
    parser = runs.parser(__doc__.splitlines()[0], work_dir="accuracy")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds, starting at 0")
    parser.add_argument("--workers", type=runs.numbers, default="1", help="numbers of workers")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--compare", action="store_true", help="compare models and baselines")
    other.add_argument(
        "--time_to", type=runs.decimals, help="values of validation NDCG@100, e.g. 0.44,0.475"
    )
    flags, recipe = parser.parse_known_args()
    if flags.compare:
        compare(flags, recipe)
        return 0
    if flags.time_to:
        time_to(flags, recipe)
        return 0
    results: Results = {
        workers: {
            precision: [
                train_and_test(
                    flags.work_dir / f"{precision}-{workers}-{seed}",
                    recipe,
                    precision,
                    seed,
                    workers,
                )
                for seed in range(flags.seeds)
            ]
            for precision in flags.precision
        }
        for workers in flags.workers
    }
    batch_size = parse_flags(["--train", *recipe]).training.batch_size_train
    print(accuracy_table(results), "", training_table(results, batch_size), sep="\n")
    if flags.json:
        runs.write_json(flags.json, {"machine": runs.machine(), "runs": results})
    return 0


def train_and_test(
    folder: Path, recipe: list[str], precision: str, seed: int, workers: int = 1
) -> runs.Results:
    """Return the results of one seed; its checkpoints, which serve to resume, are then removed."""
    flags = [
        "--train", "--test", "--seed", str(seed),
        "--checkpoint_dir", str(folder / "checkpoints"), "--checkpoint", "latest", *recipe,
    ]  # fmt: skip
    results = runs.run(folder, flags, precision, workers)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return results


def compare(flags: argparse.Namespace, recipe: list[str]) -> None:
    """Run what is missing of --compare and print its table."""
    seeds = range(flags.seeds)
    compared = {
        name: [train_and_blend(flags.work_dir, name, recipe, seed) for seed in seeds]
        for name in PRESETS
    }
    print(comparison_table(compared), "", difference_table(compared), sep="\n")
    if flags.json:
        runs.write_json(flags.json, {"machine": runs.machine(), "runs": compared})


def train_and_blend(
    work_dir: Path, name: str, recipe: list[str], seed: int
) -> dict[str, runs.Results]:
    """Return the results of one seed of a model, alone and blended with EASE."""
    folder = work_dir / f"{PRESETS[name]}-{seed}"
    model = [
        "--test", "--inference_benchmark", "--preset", PRESETS[name], "--seed", str(seed),
        "--checkpoint_dir", str(folder / "checkpoints"), *recipe,
    ]  # fmt: skip
    baselines = ["--baselines", ",".join(BASELINES)]
    results = {
        "alone": runs.run(folder / "alone", ["--train", *model, *baselines], "float32"),
        "blended": runs.run(
            folder / "blended", [*model, "--blend", "ease", "--baselines", "ease"], "float32"
        ),
    }
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return results


def time_to(flags: argparse.Namespace, recipe: list[str]) -> None:
    """Run what is missing of --time_to and print its table."""
    validations: dict[tuple[str, ...], runs.Curve] = {}
    for name, precision in itertools.product(PRESETS, flags.precision):
        for seed in range(flags.seeds):
            folder = flags.work_dir / f"{PRESETS[name]}-{precision}-{seed}"
            train_and_test(folder, ["--preset", PRESETS[name], *recipe], precision, seed)
            validations[name, precision, str(seed)] = runs.validations(folder / "log")
    print(time_table(validations, flags.time_to))
    if flags.json:
        curves = {"-".join(run): curve for run, curve in validations.items()}
        runs.write_json(flags.json, {"machine": runs.machine(), "validations": curves})


def time_table(validations: dict[tuple[str, ...], runs.Curve], values: list[float]) -> str:
    """Return a row for each model, precision and seed, in Markdown."""
    head = ["Version", "Model", "Precision", "Seed", *(f"{value:g} [min]" for value in values)]
    rows = []
    for run, curve in validations.items():
        best_seconds, best = max(curve, key=lambda validation: validation[1])
        row = [__version__, *run]
        for value in values:
            reached = (f"{seconds / 60:.2f}" for seconds, ndcg in curve if ndcg >= value)
            row.append(next(reached, f"not reached (best {best:.4f})"))
        rows.append([*row, f"{best:.4f}", f"{best_seconds / 60:.2f}"])
    return runs.markdown([*head, "Best validation", "Best [min]"], rows)


def comparison_table(compared: dict[str, list[dict[str, runs.Results]]]) -> str:
    """Return a row for each baseline, model and blend, in Markdown."""
    head = ["", *METRICS, "Time to train [s]", "One query [ms]"]
    first = next(iter(compared.values()))[0]["alone"]
    rows = [
        [TITLES[name], *(f"{first[f'{name}_{metric}']:.4f}" for metric in METRICS), "", ""]
        for name in BASELINES
    ]
    for name, seeds in compared.items():
        for kind, title in (("alone", name), ("blended", f"{name} + EASE")):
            results = [seed[kind] for seed in seeds]
            metrics = ([run[f"test_{metric}"] for run in results] for metric in METRICS)
            trained = statistics.mean(run["train_seconds"] for run in results)
            query = statistics.mean(run["batch_1_mean_latency"] for run in results)
            cells = (mean_and_deviation(values, digits=4) for values in metrics)
            seconds = f"{trained:,.0f}" if trained else ""
            rows.append([title, *cells, seconds, f"{query * 1e3:.2f}"])
    return runs.markdown(head, rows)


def difference_table(compared: dict[str, list[dict[str, runs.Results]]]) -> str:
    """Return the differences user by user, means over the seeds, in Markdown."""
    rows = []
    for name, seeds in compared.items():
        for kind, title, other in (
            ("alone", name, "EASE"),
            ("blended", f"{name} + EASE", "EASE"),
            ("blended", f"{name} + EASE", name),
        ):
            key = f"test_minus_{'ease' if other == 'EASE' else 'unblended'}_{SELECTION_METRIC}"
            difference, error = (
                statistics.mean(seed[kind][key + suffix] for seed in seeds)
                for suffix in ("", "_se")
            )
            rows.append([title, other, f"{difference:+.4f}", f"{error:.4f}"])
    return runs.markdown(["", "minus", SELECTION_METRIC, "Standard error"], rows)


def accuracy_table(results: Results) -> str:
    """Return the mean and standard deviation of the test metrics over the seeds, in Markdown."""
    rows = [
        [str(workers), precision, str(len(seeds))]
        + [mean_and_deviation([run[f"test_{metric}"] for run in seeds]) for metric in METRICS]
        for workers, precisions in results.items()
        for precision, seeds in precisions.items()
    ]
    return runs.markdown(["Workers", "Precision", "Seeds", *METRICS], rows)


def training_table(results: Results, batch_size: int) -> str:
    """Return the recipe's table of accuracy and time to train, in Markdown."""
    names = list(next(iter(results.values())))
    head = ["Workers", "Batch size / worker", *(f"NDCG@100, {name}" for name in names)]
    head += [f"Time to train, {name} [s]" for name in names]
    rows = []
    for workers, precisions in results.items():
        rows.append([str(workers), f"{batch_size // workers:,}"])
        for result, digits in (("test_ndcg@100", 6), ("train_seconds", 1)):
            means = (statistics.mean(run[result] for run in precisions[name]) for name in names)
            rows[-1] += [f"{mean:,.{digits}f}" for mean in means]
    return runs.markdown(head, rows)


def mean_and_deviation(values: list[float], digits: int = 5) -> str:
    """Return "mean ± standard deviation"; a single value has no deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
