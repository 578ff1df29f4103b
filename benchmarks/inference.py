"""Measure latency and throughput of inference, in float32 and with --amp.

::

    python benchmarks/inference.py --data_dir ./bench --dataset synthetic --json inference.json
    python benchmarks/inference.py --batch_sizes 1,64,512 --checkpoint_dir ./checkpoints

Without --checkpoint_dir the weights are random; the computation is the same.
"""

from __future__ import annotations

import sys

import runs

COLUMNS = {
    "Throughput [users/s]": "mean_throughput",
    "Mean latency [s]": "mean_latency",
    "90 % [s]": "p90_latency",
    "95 % [s]": "p95_latency",
    "99 % [s]": "p99_latency",
}


def main() -> int:
    """Run the benchmark in each precision and print the tables; return the exit code."""
    parser = runs.parser(__doc__.splitlines()[0], work_dir="inference")
    parser.add_argument("--batch_sizes", default="1", help="users per query, e.g. 1,64,512")
    flags, passed_on = parser.parse_known_args()
    recipe = ["--inference_benchmark", "--inference_batch_sizes", flags.batch_sizes, *passed_on]
    results = {
        precision: runs.run(flags.work_dir / precision, recipe, precision)
        for precision in flags.precision
    }
    for precision, statistics in results.items():
        print(f"{precision}:", "", table(statistics, runs.numbers(flags.batch_sizes)), "", sep="\n")
    if flags.json:
        runs.write_json(flags.json, {"machine": runs.machine(), "statistics": results})
    return 0


def table(statistics: runs.Results, batch_sizes: list[int]) -> str:
    """Return the recipe's table of inference performance, in Markdown."""
    rows = []
    for size in batch_sizes:
        throughput, *latency = (statistics[f"batch_{size}_{name}"] for name in COLUMNS.values())
        rows.append([f"{size:,}", f"{throughput:,.0f}", *(f"{value:.6f}" for value in latency)])
    return runs.markdown(["Batch size", *COLUMNS], rows)


if __name__ == "__main__":
    sys.exit(main())
