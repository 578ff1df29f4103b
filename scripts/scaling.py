"""Measure how training scales with the number of workers, as a table of strong scaling.

::

    python scripts/scaling.py --data_dir ./bench --dataset synthetic --workers 1,2 --cores 1
    python scripts/scaling.py --workers 1,2,4,8 --precision float32,amp

The global batch stays the same, so each worker's share of it shrinks. Efficiency is the throughput
per worker relative to the smallest job. Flags that this script does not know go to main.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFAULT_BATCH = 24576


def main() -> int:
    """Runs a training job for each number of workers and precision, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,2", help="numbers of workers (default: 1,2)")
    parser.add_argument("--precision", default="float32", help="float32, amp or float32,amp")
    parser.add_argument("--cores", type=int, help="bind each worker to this many cores")
    parser.add_argument("--epochs", type=int, default=3, help="epochs; the first warms up")
    parser.add_argument("--batch_size_train", type=int, default=DEFAULT_BATCH)
    parser.add_argument("--json", type=Path, help="write the throughputs there as well")
    flags, passed_on = parser.parse_known_args()
    sizes = [int(size) for size in flags.workers.split(",")]
    precisions = flags.precision.split(",")
    throughput = {
        precision: {size: train(size, precision, flags, passed_on) for size in sizes}
        for precision in precisions
    }
    print(table(throughput, flags.batch_size_train))
    if flags.json:
        flags.json.write_text(json.dumps(throughput, indent=2) + "\n", encoding="utf-8")
    return 0


def train(workers: int, precision: str, flags: argparse.Namespace, passed_on: list[str]) -> float:
    """Mean training throughput of one job, in users a second."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *launcher(workers, flags.cores), sys.executable, str(ROOT / "main.py"), "--train",
            "--epochs", str(flags.epochs), "--warm_up_epochs", "1",
            "--validation_step", str(flags.epochs),
            "--batch_size_train", str(flags.batch_size_train),
            "--results_dir", folder, "--log_path", f"{folder}/log", *passed_on,
        ]  # fmt: skip
        if precision == "amp":
            command.append("--amp")
        environment = dict(os.environ)
        if flags.cores:
            environment["OMP_NUM_THREADS"] = str(flags.cores)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
        return float(results["mean_training_throughput"])


def launcher(workers: int, cores: int | None) -> list[str]:
    """The mpirun of the environment this script runs in, or else the system's."""
    mpirun = shutil.which("mpirun", path=Path(sys.executable).parent) or shutil.which("mpirun")
    if mpirun is None:
        sys.exit("scaling.py: error: there is no mpirun; run 'make horovod'.")
    binding = ["--map-by", f"slot:PE={cores}", "--bind-to", "core"] if cores else []
    return [mpirun, "--allow-run-as-root", *binding, "-np", str(workers)]


def table(throughput: dict[str, dict[int, float]], batch_size: int) -> str:
    """The recipe's table of training performance, in Markdown."""
    names = list(throughput)
    head = ["Workers", "Batch size / worker"]
    head += [f"Throughput, {name} [users/s]" for name in names]
    head += [f"Strong scaling, {name}" for name in names]
    head += [f"Efficiency, {name}" for name in names]
    lines = [f"| {' | '.join(head)} |", f"|{'---:|' * len(head)}"]
    for size in throughput[names[0]]:
        smallest = min(throughput[names[0]])
        speedups = [throughput[name][size] / throughput[name][smallest] for name in names]
        cells = [str(size), f"{batch_size // size:,}"]
        cells += [f"{throughput[name][size]:,.0f}" for name in names]
        cells += [f"{speedup:.2f}" for speedup in speedups]
        cells += [f"{speedup * smallest / size:.0%}" for speedup in speedups]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
