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
from vae.config import Config, Files
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.report.console_lines import ConsoleLines, unit_of
from vae.report.environment import dataset_metadata, hardware_metadata, software_versions
from vae.report.epoch_log import EpochLog
from vae.report.tensorboard import TensorBoardWriter
from vae.utils.atomic import lock_folder, write_atomically
from vae.utils.distributed import Workers, raise_on_all
from vae.utils.outputs import make_folder, report_write_errors
from vae.utils.run_log import Callback, RunLog, check_log


class Results:
    """Files of one run in ``--results_dir``, each written complete or not at all.

    Nothing is written if it is to ``only_check``.

    Attributes:
        epoch_log: callback that records each epoch.

    Raises:
        UserError: a file cannot be used, or a package that the report needs is missing.
    """

    def __init__(self, folder: Path, completed: int | None, only_check: bool = False) -> None:
        for package in ("matplotlib", "jinja2"):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--results_dir: the report needs {package}, which is not installed in this "
                    "Python; run 'make env'."
                )
        make_folder(folder, "--results_dir", only_check)
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
        with report_write_errors(f"--results_dir {self._folder / name}"):
            write_atomically(self._folder / name, content)


@contextmanager
def open_outputs(
    files: Files, epochs: int, workers: Workers, completed: int | None, only_check: bool = False
) -> Iterator[tuple[RunLog, Results | None]]:
    """Lock the folders of a run, and open its log and the folder of its results.

    Rank 0 alone locks and writes. The log is opened last: a run that is refused leaves the log,
    which it may share with another run, as it is. All workers call this. ``completed`` is the
    number of epochs that are completed already; None if no checkpoint will be written.
    With ``only_check`` nothing is written or logged.

    Yields:
        The run log, and the results if ``--results_dir`` is used (rank 0 alone).

    Raises:
        UserError: a folder cannot be written, or another run is writing there; on all ranks.
    """
    checkpoint_dir = files.checkpoint_dir if completed is not None else None

    def open_all() -> tuple[RunLog, Results | None]:
        if workers.rank != 0:
            return RunLog(None), None
        folders = {"--checkpoint_dir": checkpoint_dir, "--results_dir": files.results_dir}
        _lock(folders, locks, only_check)
        callbacks: list[Callback] = []
        results, path = None, files.log_path
        if files.results_dir:
            results = Results(files.results_dir, completed, only_check)
            callbacks.append(results.epoch_log.add)
        if files.tensorboard_dir:
            folder = files.tensorboard_dir
            callbacks.append(TensorBoardWriter(folder, completed or 0, only_check).add)
        if only_check:
            check_log(path)
            path = Path(os.devnull)
        return RunLog(path, unit_of, ConsoleLines(epochs).line, callbacks), results

    with ExitStack() as locks:
        log, results = raise_on_all(workers, open_all)
        locks.callback(log.close)
        yield log, results


def _lock(folders: Mapping[str, Path | None], locks: ExitStack, only_check: bool) -> None:
    """Lock folders, by flag, against other runs until ``locks`` is closed."""
    # One folder may have both roles, and can be locked once.
    distinct = {path.resolve(): (flag, path) for flag, path in folders.items() if path is not None}
    for flag, path in distinct.values():
        make_folder(path, flag, only_check)
        try:
            if path.exists():
                locks.callback(os.close, lock_folder(path))
        except BlockingIOError:
            raise UserError(
                f"{flag} {path}: another run is writing there; wait for its end, or name another "
                "folder."
            ) from None
