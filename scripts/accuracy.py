"""Train and test with several seeds, in float32 and with --amp: mean and spread of the metrics.

::

    python scripts/accuracy.py --seeds 5 --dataset synthetic --data_dir ./demo --epochs 60

Flags that this script does not know go to main.py. A run whose results are already in --work_dir is
not repeated, so an interrupted call can be given again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
METRICS = ("test_ndcg@100", "test_recall@20", "test_recall@50")


def main() -> int:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 on")
    parser.add_argument("--precision", default="float32,amp", help="float32, amp or float32,amp")
    parser.add_argument("--work_dir", type=Path, default=Path("accuracy"), help="for the results")
    flags, passed_on = parser.parse_known_args()
    results = {
        precision: [run(flags.work_dir, precision, seed, passed_on) for seed in range(flags.seeds)]
        for precision in flags.precision.split(",")
    }
    print(table(results))
    return 0


def run(work_dir: Path, precision: str, seed: int, passed_on: list[str]) -> dict[str, float]:
    """The closing figures of one run."""
    folder = work_dir / f"{precision}-{seed}"
    if not (folder / "results.json").exists():
        command = [
            sys.executable, str(ROOT / "main.py"), "--train", "--test", "--seed", str(seed),
            "--results_dir", str(folder), "--log_path", str(folder / "log"), *passed_on,
        ]  # fmt: skip
        if precision == "amp":
            command.append("--amp")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    figures: dict[str, float] = json.loads((folder / "results.json").read_text("utf-8"))
    return figures


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over the seeds, in Markdown."""
    head = ["precision", "seeds", *(metric.removeprefix("test_") for metric in METRICS)]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|---:|---:|"]
    for precision, runs in results.items():
        cells = [precision, str(len(runs))]
        for metric in METRICS:
            values = [run[metric] for run in runs]
            spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
            cells.append(f"{np.mean(values):.5f} ± {spread:.5f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
