"""Measure how training scales with the number of workers, in float32 and with --amp.

::

    python benchmarks/scaling.py --data_dir ./bench --dataset synthetic --workers 1,2 --cores 1
    python benchmarks/scaling.py --workers 1,2,4,8 --json scaling.json

The global batch stays the same, so the shard of each worker shrinks: strong scaling is the
throughput relative to that of the smallest job. An interrupted command can be rerun.
"""

from __future__ import annotations

import sys

import runs

DEFAULT_BATCH = 24576


def main() -> int:
    """Train with each number of workers and precision, print the table; return the exit code."""
    parser = runs.parser(__doc__.splitlines()[0], work_dir="scaling")
    parser.add_argument("--workers", type=runs.numbers, default="1,2", help="numbers of workers")
    parser.add_argument("--cores", type=int, help="bind each worker to this many cores")
    parser.add_argument("--epochs", type=int, default=3, help="epochs; the first is warm-up")
    parser.add_argument("--batch_size_train", type=int, default=DEFAULT_BATCH)
    flags, passed_on = parser.parse_known_args()
    recipe = [
        "--train", "--epochs", str(flags.epochs), "--warm_up_epochs", "1",
        "--validation_step", str(flags.epochs),
        "--batch_size_train", str(flags.batch_size_train), *passed_on,
    ]  # fmt: skip
    throughput = {
        precision: {
            workers: runs.run(
                flags.work_dir / f"{precision}-{workers}", recipe, precision, workers, flags.cores
            )["mean_training_throughput"]
            for workers in flags.workers
        }
        for precision in flags.precision
    }
    print(table(throughput, flags.batch_size_train))
    if flags.json:
        runs.write_json(flags.json, {"machine": runs.machine(), "throughput": throughput})
    return 0


def table(throughput: dict[str, dict[int, float]], batch_size: int) -> str:
    """Return the recipe's table of training performance, in Markdown."""
    names = list(throughput)
    head = ["Workers", "Batch size / worker", *(f"Throughput, {name} [users/s]" for name in names)]
    if len(names) == 2:
        head.append(f"Speedup, {names[0]} to {names[1]}")
    head += [f"Strong scaling, {name}" for name in names]
    rows = []
    for workers in throughput[names[0]]:
        measured = [throughput[name][workers] for name in names]
        smallest = [next(iter(throughput[name].values())) for name in names]
        row = [str(workers), f"{batch_size // workers:,}", *(f"{value:,.0f}" for value in measured)]
        if len(names) == 2:
            row.append(f"{measured[1] / measured[0]:.2f}")
        row += [f"{value / first:.2f}" for value, first in zip(measured, smallest, strict=True)]
        rows.append(row)
    return runs.markdown(head, rows)


if __name__ == "__main__":
    sys.exit(main())
