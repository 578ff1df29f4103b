"""The files of ``--results_dir``, and the outputs that a run opens before it starts."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vae.cli import as_json
from vae.config import Config
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.report.environment import dataset_metadata, hardware_metadata, software_versions
from vae.report.epoch_log import EpochLog
from vae.report.tensorboard import TensorBoardWriter
from vae.utils.atomic import lock_folder, make_folder, write_whole, written
from vae.utils.distributed import Workers, raise_on_all
from vae.utils.run_log import Callback, RunLog


class Results:
    """Files of one run in ``--results_dir``, each written complete or not at all.

    Args:
        folder: folder, created if it does not exist.
        completed: as for ``EpochLog``.

    Attributes:
        epoch_log: callback that records each epoch.

    Raises:
        UserError: a file cannot be used, or a package that the report needs is missing.
    """

    def __init__(self, folder: Path, completed: int | None) -> None:
        for package in ("matplotlib", "jinja2"):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--results_dir: the report needs {package}, which is not installed in this "
                    "Python; run 'make env'."
                )
        make_folder(folder, "--results_dir")
        self._folder = folder
        self.epoch_log = EpochLog(folder / "epochs.csv", completed)

    def write(
        self, config: Config, dataset: Dataset, workers: Workers, summary: Mapping[str, float]
    ) -> None:
        """Write ``args.json``, ``results.json``, the curves and ``report.html``.

        An undefined value (NaN) is left out of ``results.json``, since JSON has no NaN.
        """
        # matplotlib takes a second to import, which only a run with --results_dir pays for.
        from vae.report.curves import draw_curves
        from vae.report.html import report_page

        warm = {name: value for name, value in summary.items() if name.startswith("warm_start_")}
        self._write("args.json", json.dumps(as_json(config) | warm, indent=2) + "\n")
        defined = {name: value for name, value in summary.items() if math.isfinite(value)}
        self._write("results.json", json.dumps(defined, indent=2) + "\n")
        curves = draw_curves(self.epoch_log)
        for name, png in curves.items():
            self._write(f"{name}.png", png)
        metadata = {
            "Data set": dataset_metadata(dataset),
            "Hardware": hardware_metadata(workers),
            "Versions": software_versions(),
        }
        page = report_page(config, summary, curves, self.epoch_log.epochs(), metadata)
        # A path may hold bytes that are not UTF-8.
        self._write("report.html", page.encode(errors="backslashreplace"))

    def _write(self, name: str, content: str | bytes) -> None:
        with written("--results_dir", self._folder / name):
            write_whole(self._folder / name, content)


@contextmanager
def open_outputs(
    config: Config, workers: Workers, completed: int | None
) -> Iterator[tuple[RunLog, Results | None]]:
    """Lock the folders of a run, and open its log and the folder of its results.

    Rank 0 alone locks and writes. The log is opened last: a run that is refused leaves the log,
    which it may share with another run, as it is.

    Args:
        config: flags, which name the folders.
        workers: workers of the run; all of them call this.
        completed: epochs that are completed already; None if no checkpoint will be written.

    Yields:
        The run log, and the results if ``--results_dir`` is used (rank 0 alone).

    Raises:
        UserError: a folder cannot be written, or another run is writing there; on all ranks.
    """
    is_first = workers.rank == 0
    with ExitStack() as locks:
        raise_on_all(
            workers, lambda: _lock(config, completed is not None, locks) if is_first else None
        )
        results, callbacks = raise_on_all(
            workers, lambda: _open_results(config, completed) if is_first else (None, [])
        )
        log = raise_on_all(workers, lambda: RunLog(config.files.log_path, is_first, callbacks))
        locks.callback(log.close)
        yield log, results


def _lock(config: Config, trains: bool, locks: ExitStack) -> None:
    """Lock the folders that the run writes to against other runs until ``locks`` is closed."""
    named = {"--checkpoint_dir": config.files.checkpoint_dir if trains else None}
    named |= {"--results_dir": config.files.results_dir}
    # One folder may have both roles, and can be locked once.
    distinct = {path.resolve(): (flag, path) for flag, path in named.items() if path is not None}
    for flag, path in distinct.values():
        make_folder(path, flag)
        try:
            locks.callback(os.close, lock_folder(path))
        except BlockingIOError:
            raise UserError(
                f"{flag} {path}: another run is writing there; wait for its end, or name another "
                "folder."
            ) from None


def _open_results(config: Config, completed: int | None) -> tuple[Results | None, list[Callback]]:
    """Results, if ``--results_dir`` is used, and the callbacks of the log."""
    callbacks: list[Callback] = []
    results = Results(config.files.results_dir, completed) if config.files.results_dir else None
    if results:
        callbacks.append(results.epoch_log)
    if config.files.tensorboard_dir:
        callbacks.append(TensorBoardWriter(config.files.tensorboard_dir, completed or 0))
    return results, callbacks
