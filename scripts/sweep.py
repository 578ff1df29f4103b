"""Search for good training flags with Optuna, on the validation users alone.

::

    python scripts/sweep.py --trials 30 --data_dir data --dataset plays --preset small

A trial is a run of main.py with flags from ``SPACE``; its value is its best validation NDCG@100. A
trial that falls behind the median of the earlier ones is pruned. Unknown flags go to main.py, and a
flag of ``SPACE`` that is given is not searched. --work_dir holds the study (SQLite), the log and
the errors of each trial, and trials.csv. The same command resumes an interrupted search; the trial
that was running restarts. Optuna is in requirements-test-all.txt.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import io
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import FrozenTrial, TrialState
except ModuleNotFoundError as error:
    sys.exit(
        f"sweep.py: error: the module {error.name!r} is not installed in this Python "
        f"({sys.executable}); install requirements-test-all.txt."
    )

from vae.config import parse_flags
from vae.errors import UserError
from vae.utils.atomic import write_atomically

ROOT = Path(__file__).resolve().parents[1]
METRIC = "ndcg@100"
SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "anneal_cap": FloatDistribution(0.02, 1.0, log=True),
    "total_anneal_steps": IntDistribution(100, 20_000, log=True),
    "batch_size_train": IntDistribution(25, 1_000, log=True),
    "dropout": FloatDistribution(0.1, 0.8),
    "hidden_dim": CategoricalDistribution((100, 200, 400, 600)),
    "latent_dim": CategoricalDistribution((25, 50, 100, 200)),
}
"""Search space, with ranges for small data sets; larger ones need larger batches."""

PER_ITEM = {"kl_per_item": FloatDistribution(5e-4, 0.05, log=True)}
ANNEALING = ("anneal_cap", "total_anneal_steps")
"""What a model with a KL weight per item has in place of the annealing."""

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def main() -> int:
    """Run the missing trials and print the best flags; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30, help="trials in all (default: 30)")
    parser.add_argument("--grace", type=int, default=20, help="epochs before a trial can be pruned")
    parser.add_argument("--work_dir", type=Path, default=Path("sweep"), help="holds the results")
    flags, passed_on = parser.parse_known_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # end the trial's process, then this one
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    flags.work_dir.mkdir(parents=True, exist_ok=True)
    with (flags.work_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        study = open_study(flags.work_dir, passed_on, flags.grace)
        while len(study.get_trials(states=DONE)) < flags.trials:
            run_trial(study, flags.work_dir, passed_on)
            write_csv(flags.work_dir / "trials.csv", study.get_trials(states=DONE))
    print(f"\nBest of {flags.trials} trials: {METRIC} {study.best_value:.5f} on validation users.")
    print(shlex.join(["python", "main.py", "--train", *as_flags(study.best_params), *passed_on]))
    return 0


def open_study(work_dir: Path, passed_on: list[str], grace: int) -> optuna.Study:
    """Create or load the study in the folder; an interrupted trial is first in its queue.

    Raises:
        SystemExit: the study was made with other flags.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{work_dir / 'study.db'}",
        study_name="sweep",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=grace),
    )
    # With a fixed seed a resumed search would repeat its first draws.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    before = study.user_attrs.get("flags", passed_on)
    if before != passed_on:
        sys.exit(f"{work_dir}: holds trials with {shlex.join(before)}; name another --work_dir.")
    study.set_user_attr("flags", passed_on)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def space_of(passed_on: list[str]) -> dict[str, BaseDistribution]:
    """Return the search space of the model that the flags select."""
    try:
        per_item = parse_flags(["--train", *passed_on]).objective.kl_per_item > 0
    except UserError:  # which main.py reports
        per_item = False
    if not per_item:
        return SPACE
    return {name: range_ for name, range_ in SPACE.items() if name not in ANNEALING} | PER_ITEM


def run_trial(study: optuna.Study, work_dir: Path, passed_on: list[str]) -> None:
    """Train with new flags and report the result to the study.

    A run that fails, e.g. because a high learning rate made the loss diverge, counts as pruned.

    Raises:
        SystemExit: main.py refuses the flags or the data, which every trial has in common.
    """
    given = {argument.partition("=")[0] for argument in passed_on}
    space = {
        name: range_ for name, range_ in space_of(passed_on).items() if f"--{name}" not in given
    }
    trial = study.ask(space)
    log = work_dir / f"trial-{trial.number}.log"
    log.unlink(missing_ok=True)  # main.py would append to the log of a deleted study
    errors = log.with_suffix(".err")
    command = [
        sys.executable, str(ROOT / "main.py"), "--train", *as_flags(trial.params), *passed_on,
        "--log_path", str(log),
    ]  # fmt: skip
    with (
        errors.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr) as process,
    ):
        try:
            best, behind = follow_trial(trial, process, log)
        finally:
            process.terminate()
    if process.returncode == 2:  # invalid flags or data
        sys.exit(errors.read_text(encoding="utf-8").rstrip())
    failed = process.returncode != 0 and not behind
    if failed or behind:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, best)
    outcome = "failed" if failed else "pruned" if behind else "completed"
    settings = shlex.join(as_flags(trial.params))
    print(f"Trial {trial.number} {outcome}: {METRIC} {best:.5f} with {settings}", flush=True)


def follow_trial(
    trial: optuna.Trial, process: subprocess.Popen[bytes], log: Path
) -> tuple[float, bool]:
    """Report the validations; return the best NDCG@100 and whether the trial is to be pruned."""
    best = 0.0
    for line in follow(log, process):
        if METRIC in line.get("data", {}):
            (epoch,) = line["step"]
            value = line["data"][METRIC]
            if value > best:
                best = value
                trial.set_user_attr("epoch", epoch)
            trial.report(value, epoch)
            if trial.should_prune():
                return best, True
    return best, False


def follow(log: Path, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the entries of a log as they are written, until the process has exited."""
    position = 0
    running = True
    while running:
        running = process.poll() is None
        if log.exists():
            with log.open(encoding="utf-8") as file:
                file.seek(position)
                while (line := file.readline()).endswith("\n"):
                    position = file.tell()
                    yield json.loads(line.removeprefix("DLLL "))
        if running:
            time.sleep(0.1)


def as_flags(params: Mapping[str, Any]) -> list[str]:
    """Return the parameters of a trial as flags of main.py."""
    return [
        text
        for name, value in params.items()
        for text in (f"--{name}", f"{value:.6g}" if isinstance(value, float) else str(value))
    ]


def write_csv(path: Path, trials: list[FrozenTrial]) -> None:
    """Write a row per trial, best first."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    names = [*SPACE, *PER_ITEM]
    rows.writerow(["trial", "state", METRIC, "epoch", "seconds", *names])
    for trial in sorted(trials, key=best_validation, reverse=True):
        seconds = trial.duration.total_seconds() if trial.duration else ""
        row = [trial.number, trial.state.name.lower(), best_validation(trial)]
        row += [trial.user_attrs.get("epoch", ""), seconds]
        rows.writerow([*row, *(trial.params.get(name, "") for name in names)])
    write_atomically(path, text.getvalue())


def best_validation(trial: FrozenTrial) -> float:
    """Return the best NDCG@100 of a trial, 0 if it was never validated."""
    return max(trial.intermediate_values.values(), default=0.0)


if __name__ == "__main__":
    sys.exit(main())
