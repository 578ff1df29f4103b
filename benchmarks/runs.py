"""Runs of main.py with cached results, and Markdown tables, for the other benchmarks.

A benchmark needs the same runs whenever it is called. A run whose results are in the work folder is
not repeated; one that was interrupted resumes from its latest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from vae.metrics.ranking import SELECTION_METRIC
from vae.utils.atomic import write_atomically
from vae.utils.host import processor_name

ROOT = Path(__file__).resolve().parents[1]

Results = dict[str, float]
"""Final metrics and statistics of a run, by their names in the log, and ``train_seconds``."""

Curve = list[tuple[float, float]]
"""Of each validation of a run: seconds of training before it, and NDCG@100."""


def parser(description: str, work_dir: str) -> argparse.ArgumentParser:
    """Return a parser of the flags that several benchmarks have; unknown flags go to main.py."""
    flags = argparse.ArgumentParser(
        description=f"{description} Other flags go to main.py.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument(
        "--precision", type=words, default="float32,amp", help="float32, amp or float32,amp"
    )
    flags.add_argument("--work_dir", type=Path, default=Path(work_dir), help="holds the runs")
    flags.add_argument("--json", type=Path, help="also write the results to this file")
    return flags


def words(text: str) -> list[str]:
    """Split ``a,b`` into a list."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """Split ``1,2`` into a list of integers."""
    return [int(word) for word in words(text)]


def decimals(text: str) -> list[float]:
    """Split ``0.1,2`` into a list of numbers."""
    return [float(word) for word in words(text)]


def run(
    folder: Path, flags: Sequence[str], precision: str, workers: int = 1, cores: int | None = None
) -> Results:
    """Run main.py, unless the folder holds the results of this run; return its results.

    Args:
        folder: holds the checkpoints, log and results of the run.
        flags: flags of main.py beside those that follow from the other arguments.
        precision: ``"float32"`` or ``"amp"``.
        workers: number of processes.
        cores: cores to bind each worker to; None for no binding.

    Raises:
        SystemExit: the folder holds a run with other flags, or main.py fails.
    """
    cache = folder / "run.json"
    flags = [*flags, *(["--amp"] if precision == "amp" else [])]
    settings = {"flags": flags, "workers": workers, "cores": cores}
    if cache.exists():
        document = json.loads(cache.read_text(encoding="utf-8"))
        if document["settings"] != settings:
            sys.exit(f"error: {folder}: holds a run with other flags; name another --work_dir.")
        return dict(document["results"])
    command = [
        *launcher(workers, cores), sys.executable, str(ROOT / "main.py"),
        "--results_dir", str(folder), "--log_path", str(folder / "log"), *flags,
    ]  # fmt: skip
    print(" ".join(command), file=sys.stderr)
    environment = dict(os.environ)
    if cores:
        environment |= {"OMP_NUM_THREADS": str(cores), "TF_NUM_INTRAOP_THREADS": str(cores)}
    done = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False)
    if done.returncode:
        sys.exit(f"error: main.py exited with {done.returncode}; see its log {folder / 'log'}.")
    results: Results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results["train_seconds"] = train_seconds(folder / "log")
    write_json(cache, {"settings": settings, "results": results})
    return results


def launcher(workers: int, cores: int | None) -> list[str]:
    """Return the beginning of a command that starts workers, empty for a single unbound one.

    The mpirun is that of this Python environment, or else the system's.

    Raises:
        SystemExit: there is no mpirun.
    """
    if workers == 1 and not cores:
        return []
    mpirun = shutil.which("mpirun", path=Path(sys.executable).parent) or shutil.which("mpirun")
    if mpirun is None:
        sys.exit("error: mpirun not found; run 'make horovod'.")
    binding = (
        ["--map-by", f"slot:PE={cores}", "--bind-to", "core"] if cores else ["--bind-to", "none"]
    )
    return [mpirun, "--allow-run-as-root", *binding, "-np", str(workers)]


def train_seconds(log: Path) -> float:
    """Return the seconds of all training epochs, without startup and validation."""
    return float(sum(epoch["train_epoch_time"] for epoch in _epochs(log)))


def validations(log: Path) -> Curve:
    """Return the validations of a run in their order, as in ``Curve``."""
    epochs = _epochs(log)
    seconds = accumulate(epoch["train_epoch_time"] for epoch in epochs)
    return [
        (trained, epoch[SELECTION_METRIC])
        for trained, epoch in zip(seconds, epochs, strict=True)
        if SELECTION_METRIC in epoch
    ]


def _epochs(log: Path) -> list[dict[str, float]]:
    """Return what the log has of each epoch; one repeated after an interruption counts once."""
    epochs: dict[int, dict[str, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.removeprefix("DLLL "))
        if entry["type"] == "LOG" and isinstance(entry["step"], list) and entry["step"]:
            epochs.setdefault(entry["step"][0], {}).update(entry["data"])
    return [epochs[number] for number in sorted(epochs)]


def machine() -> dict[str, Any]:
    """Describe the hardware and software that the results depend on."""
    # Not above: it imports TensorFlow, and benchmark.py measures the memory of processes without.
    from vae.report.environment import software_versions

    return {"processor": processor_name(), "cores": os.cpu_count()} | software_versions()


def write_json(path: Path, document: object) -> None:
    """Write a JSON file atomically, with its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(document, indent=2) + "\n")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with right-aligned columns."""
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
