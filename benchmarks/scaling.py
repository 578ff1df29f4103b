"""Measure how training scales with the number of workers, by precision and by what they divide.

::

    python benchmarks/scaling.py --data_dir ./bench --dataset synthetic --workers 1,2 --cores 1
    python benchmarks/scaling.py --workers 1,2,4,8 --json scaling.json
    python benchmarks/scaling.py --parallel users,items --precision float32

The global batch stays the same, so the shard of each worker shrinks: strong scaling is the
throughput relative to that of the smallest job. An interrupted command can be rerun.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from itertools import product
from pathlib import Path

import runs

DEFAULT_BATCH = 24576
_IN_GRAPH = re.compile("Horovod(Allreduce|Allgather)")
"""Names of the operations of the model's graph; those of Python objects have others."""


def main() -> int:
    """Train with each number of workers and precision, print the table; return the exit code."""
    parser = runs.parser(__doc__.splitlines()[0], work_dir="scaling")
    parser.add_argument("--workers", type=runs.numbers, default="1,2", help="numbers of workers")
    parser.add_argument("--parallel", type=runs.words, default="users", help="users,items: both")
    parser.add_argument("--cores", type=int, help="bind each worker to this many cores")
    parser.add_argument("--epochs", type=int, default=3, help="epochs; the first is warm-up")
    parser.add_argument("--batch_size_train", type=int, default=DEFAULT_BATCH)
    flags, passed_on = parser.parse_known_args()
    recipe = [
        "--train", "--epochs", str(flags.epochs), "--warm_up_epochs", "1",
        "--validation_step", str(flags.epochs),
        "--batch_size_train", str(flags.batch_size_train), *passed_on,
    ]  # fmt: skip
    throughput: dict[str, dict[int, float]] = {}
    sent: dict[str, dict[int, float]] = {}
    for precision, parallel in product(flags.precision, flags.parallel):
        name = precision if flags.parallel == ["users"] else f"{precision}, {parallel}"
        throughput[name], sent[name] = {}, {}
        for workers in flags.workers:
            folder = flags.work_dir / f"{name.replace(', ', '-')}-{workers}"
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["HOROVOD_TIMELINE"] = str(folder / "timeline.json")
            divided = [*recipe, *(["--parallel", parallel] if name != precision else [])]
            results = runs.run(folder, divided, precision, workers, flags.cores)
            throughput[name][workers] = results["mean_training_throughput"]
            sent[name][workers] = bytes_per_step(folder / "timeline.json") if workers > 1 else 0.0
    print(table(throughput, sent, flags.batch_size_train))
    if flags.json:
        document = {"machine": runs.machine(), "throughput": throughput, "bytes_per_step": sent}
        runs.write_json(flags.json, document)
    return 0


def bytes_per_step(timeline: Path) -> float:
    """Return the bytes that a worker's graph passed to Horovod, by Horovod's timeline.

    They are divided by the steps of training, of which each sums one tensor of five numbers, its
    losses and requests, or with divided items of the two requests alone. Those of the validation at
    the end are among them.
    """
    events = json.loads(timeline.read_text(encoding="utf-8").rstrip().rstrip(",]") + "]")
    names = {e["pid"]: e["args"].get("name") for e in events if e.get("name") == "process_name"}
    tensors = [
        (json.loads(event["args"]["shape"]), event["args"]["dtype"])
        for event in events
        if "shape" in event.get("args", {}) and _IN_GRAPH.search(names[event["pid"]])
    ]
    total: int = sum(
        math.prod(shape) * (2 if dtype == "float16" else 4) for shape, dtype in tensors
    )
    shapes = [shape for shape, _ in tensors]
    return total / (shapes.count([5]) or shapes.count([2]))


def table(
    throughput: dict[str, dict[int, float]], sent: dict[str, dict[int, float]], batch_size: int
) -> str:
    """Return the recipe's table of training performance, in Markdown."""
    names = list(throughput)
    head = ["Workers", "Batch size / worker", *(f"Throughput, {name} [users/s]" for name in names)]
    if len(names) == 2:
        head.append(f"Speedup, {names[0]} to {names[1]}")
    head += [f"Sent per step, {name} [MB]" for name in names]
    head += [f"Strong scaling, {name}" for name in names]
    rows = []
    for workers in throughput[names[0]]:
        measured = [throughput[name][workers] for name in names]
        smallest = [next(iter(throughput[name].values())) for name in names]
        row = [str(workers), f"{batch_size // workers:,}", *(f"{value:,.0f}" for value in measured)]
        if len(names) == 2:
            row.append(f"{measured[1] / measured[0]:.2f}")
        row += [f"{sent[name][workers] / 1e6:.2f}" for name in names]
        row += [f"{value / first:.2f}" for value, first in zip(measured, smallest, strict=True)]
        rows.append(row)
    return runs.markdown(head, rows)


if __name__ == "__main__":
    sys.exit(main())
