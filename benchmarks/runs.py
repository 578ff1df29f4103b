"""What the scripts that fill the README's tables share: runs of main.py that are kept, and tables.

A script asks for the same runs each time it is called. A run whose figures are in the work folder
is not repeated, and one that was interrupted goes on from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vae.utils.atomic import write_whole

ROOT = Path(__file__).resolve().parents[1]

Figures = dict[str, float]
"""The closing figures of a run, by the names that the log uses, and ``train_seconds``."""


def parser(description: str, work_dir: str) -> argparse.ArgumentParser:
    """The flags that all of the scripts have; flags that a script does not know go to main.py."""
    made = argparse.ArgumentParser(
        description=f"{description} Other flags go to main.py.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--precision", type=words, default="float32,amp", help="float32, amp or float32,amp"
    )
    made.add_argument("--work_dir", type=Path, default=Path(work_dir), help="keeps the runs")
    made.add_argument("--json", type=Path, help="write the figures there as well")
    return made


def words(text: str) -> list[str]:
    """``a,b`` as a list."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """``1,2`` as a list."""
    return [int(word) for word in words(text)]


def run(
    folder: Path, flags: Sequence[str], precision: str, workers: int = 1, cores: int | None = None
) -> Figures:
    """One run of main.py, unless ``folder`` holds it already.

    Args:
        folder: keeps the run.
        flags: of main.py, beside those that follow from the other arguments.
        precision: float32 or amp.
        workers: processes to start.
        cores: to bind each worker to; None: no binding.
    """
    kept = folder / "run.json"
    flags = [*flags, *(["--amp"] if precision == "amp" else [])]
    settings = {"flags": flags, "workers": workers, "cores": cores}
    if kept.exists():
        document = json.loads(kept.read_text(encoding="utf-8"))
        if document["settings"] != settings:
            sys.exit(f"error: {folder} holds a run of other flags; give another --work_dir.")
        return dict(document["figures"])
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
        sys.exit(f"error: main.py ended with {done.returncode}; its log is {folder / 'log'}.")
    figures: Figures = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    figures["train_seconds"] = train_seconds(folder / "log")
    write_json(kept, {"settings": settings, "figures": figures})
    return figures


def launcher(workers: int, cores: int | None) -> list[str]:
    """The mpirun of the environment this script runs in, or else the system's."""
    if workers == 1 and not cores:
        return []
    mpirun = shutil.which("mpirun", path=Path(sys.executable).parent) or shutil.which("mpirun")
    if mpirun is None:
        sys.exit("error: there is no mpirun; run 'make horovod'.")
    placed = (
        ["--map-by", f"slot:PE={cores}", "--bind-to", "core"] if cores else ["--bind-to", "none"]
    )
    return [mpirun, "--allow-run-as-root", *placed, "-np", str(workers)]


def train_seconds(log: Path) -> float:
    """Seconds of all training epochs, without start and validations.

    An epoch that was trained again after an interruption counts once.
    """
    seconds = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.removeprefix("DLLL "))
        if entry["type"] == "LOG" and "train_epoch_time" in entry["data"]:
            seconds[tuple(entry["step"])] = entry["data"]["train_epoch_time"]
    return float(sum(seconds.values()))


def machine() -> dict[str, Any]:
    """What the figures depend on, beside the flags."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": _tensorflow_version(),
    }


def write_json(path: Path, document: object) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=2) + "\n")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with its numbers aligned to the right."""
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _tensorflow_version() -> str | None:
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
