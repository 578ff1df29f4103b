"""Train and test with several seeds, in float32 and with --amp: mean and spread of the metrics.

::

    python benchmarks/accuracy.py --json accuracy.json
    python benchmarks/accuracy.py --seeds 5 --dataset synthetic --data_dir ./demo --epochs 60

The model at the end of training is tested. An interrupted command can be rerun: completed runs are
not repeated, and the interrupted one resumes.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from pathlib import Path

import runs

from vae.metrics.ranking import METRICS

Results = dict[int, dict[str, list[runs.Results]]]
"""Number of workers -> precision -> results of each seed."""


def main() -> int:
    """Run what is missing and print the tables; return the exit code."""
    parser = runs.parser(__doc__.splitlines()[0], work_dir="accuracy")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds, starting at 0")
    parser.add_argument("--workers", type=runs.numbers, default="1", help="numbers of workers")
    parser.add_argument("--batch_size_train", type=int, default=24576)
    flags, passed_on = parser.parse_known_args()
    recipe = ["--batch_size_train", str(flags.batch_size_train), *passed_on]
    results: Results = {
        workers: {
            precision: [
                train_and_test(flags.work_dir, recipe, precision, workers, seed)
                for seed in range(flags.seeds)
            ]
            for precision in flags.precision
        }
        for workers in flags.workers
    }
    print(accuracy_table(results), "", training_table(results, flags.batch_size_train), sep="\n")
    if flags.json:
        runs.write_json(flags.json, {"machine": runs.machine(), "runs": results})
    return 0


def train_and_test(
    work_dir: Path, recipe: list[str], precision: str, workers: int, seed: int
) -> runs.Results:
    """Return the results of one seed; its checkpoints, which serve to resume, are then removed."""
    folder = work_dir / f"{precision}-{workers}-{seed}"
    flags = [
        "--train", "--test", "--seed", str(seed),
        "--checkpoint_dir", str(folder / "checkpoints"), "--checkpoint", "latest", *recipe,
    ]  # fmt: skip
    results = runs.run(folder, flags, precision, workers)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return results


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


def mean_and_deviation(values: list[float]) -> str:
    """Return "mean ± standard deviation"; a single value has no deviation."""
    deviation = f" ± {statistics.stdev(values):.5f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.5f}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
