"""Measure how much memory and time preparation takes on data larger than memory.

::

    python benchmarks/memory.py --rows 200000000 --data_dir ./big --limit_gb 6

Ratings are generated in parts of ten million rows, alternately as CSV and as Parquet, and prepared
in a process with limited memory. Every row is above the threshold, users come in random order, and
``--ids`` selects the kind of the ids.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from runs import ROOT

PART_ROWS = 10_000_000
USER_ROWS = 145
"""Mean rows per user, as in MovieLens-20M."""


def main() -> int:
    """Generate and prepare the data, print the statistics; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--ids", choices=("integers", "strings"), default="integers")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--limit_gb", type=float, default=6.0, help="GB of address space")
    flags = parser.parse_args()
    folder = flags.data_dir / "parts"
    size = generate(folder, flags.rows, flags.items, flags.ids)
    print(f"{flags.rows:,} rows in {size / 1e9:.1f} GB of files.", flush=True)
    command = [
        sys.executable, ROOT / "prepare_dataset.py", "--data_dir", flags.data_dir,
        "--dataset", "big", "--ratings", folder, "--force",
    ]  # fmt: skip
    limit = int(flags.limit_gb * 1e9)
    start = time.perf_counter()
    done = subprocess.run(
        command,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = usage.ru_maxrss * 1024
    print(
        f"Finished in {seconds:.0f} s ({usage.ru_utime + usage.ru_stime:.0f} s of CPU time) with a "
        f"peak of {peak / 1e9:.2f} GB resident, "
        f"{peak / flags.rows:.1f} bytes per row, under a limit of {flags.limit_gb:g} GB."
    )
    return done.returncode


def generate(folder: Path, rows: int, items: int, kind: str) -> int:
    """Write the parts; return their total size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, rows, PART_ROWS)):
        rng = np.random.default_rng(part)
        count = min(PART_ROWS, rows - start)
        table = pa.table(
            {
                "userId": names(rng.integers(0, rows // USER_ROWS, count), "user", kind),
                # A long-tailed popularity.
                "movieId": names((items * rng.random(count) ** 3).astype(int), "item", kind),
                "rating": rng.integers(8, 11, count) / 2,
            }
        )
        if part % 2:
            pq.write_table(table, folder / f"part-{part:03}.parquet")
        else:
            pa_csv.write_csv(table, folder / f"part-{part:03}.csv")
    return sum(path.stat().st_size for path in folder.iterdir())


def names(numbers: NDArray[np.int64], prefix: str, kind: str) -> pa.Array:
    """Return ids as integers, or as strings such as ``user-000000012``."""
    if kind == "integers":
        return pa.array(numbers)
    codes, distinct = np.unique(numbers, return_inverse=True)[::-1]
    texts = pa.array([f"{prefix}-{number:09}" for number in distinct])
    return pa.DictionaryArray.from_arrays(pa.array(codes), texts).dictionary_decode()


if __name__ == "__main__":
    sys.exit(main())
