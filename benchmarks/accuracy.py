"""Train and test with several seeds, in float32 and with --amp: mean and spread of the metrics.

::

    python benchmarks/accuracy.py --json accuracy.json
    python benchmarks/accuracy.py --seeds 5 --dataset synthetic --data_dir ./demo --epochs 60

What is tested is the model at the end of training. An interrupted call can be given again: runs
that are done are not repeated, and the one under way is resumed.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from pathlib import Path

import runs

from vae.metrics.ranking import METRICS

Results = dict[int, dict[str, list[runs.Figures]]]
"""Workers -> precision -> the figures of each seed."""


def main() -> int:
    """Runs what is missing and prints the tables."""
    parser = runs.parser(__doc__.splitlines()[0], work_dir="accuracy")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds, from 0 on")
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
) -> runs.Figures:
    """The figures of one seed. Its checkpoints are for resuming: they go when it is done."""
    folder = work_dir / f"{precision}-{workers}-{seed}"
    flags = [
        "--train", "--test", "--seed", str(seed),
        "--checkpoint_dir", str(folder / "checkpoints"), "--checkpoint", "latest", *recipe,
    ]  # fmt: skip
    figures = runs.run(folder, flags, precision, workers)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return figures


def accuracy_table(results: Results) -> str:
    """Mean and standard deviation of the test's metrics over the seeds, in Markdown."""
    rows = [
        [str(workers), precision, str(len(seeds))]
        + [spread([figures[f"test_{metric}"] for figures in seeds]) for metric in METRICS]
        for workers, precisions in results.items()
        for precision, seeds in precisions.items()
    ]
    return runs.markdown(["Workers", "Precision", "Seeds", *METRICS], rows)


def training_table(results: Results, batch_size: int) -> str:
    """The recipe's table of accuracy and time to train, in Markdown."""
    names = list(next(iter(results.values())))
    head = ["Workers", "Batch size / worker", *(f"NDCG@100, {name}" for name in names)]
    head += [f"Time to train, {name} [s]" for name in names]
    rows = []
    for workers, precisions in results.items():
        rows.append([str(workers), f"{batch_size // workers:,}"])
        for figure, digits in (("test_ndcg@100", 6), ("train_seconds", 1)):
            means = (statistics.mean(run[figure] for run in precisions[name]) for name in names)
            rows[-1] += [f"{mean:,.{digits}f}" for mean in means]
    return runs.markdown(head, rows)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation; one value has none."""
    deviation = f" ± {statistics.stdev(values):.5f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.5f}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
