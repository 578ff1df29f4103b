"""What goes into ``--results_dir``."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path

from vae.cli import as_json
from vae.config import Config
from vae.errors import UserError
from vae.load import Dataset
from vae.report.environment import data_facts, machine_facts, version_facts
from vae.report.epoch_log import History
from vae.utils.atomic import make_folder, write_whole, written
from vae.utils.distributed import Workers


class Results:
    """The files of one run, each there whole or not at all.

    Attributes:
        history: follows the run's epochs.

    Raises:
        UserError: the folder cannot be written, or holds a table of epochs that cannot be read, or
            matplotlib is missing.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("matplotlib") is None:
            raise UserError(
                "--results_dir: the curves need matplotlib, which is not installed in this "
                "Python; run 'make env'."
            )
        make_folder(folder, "--results_dir")
        self._folder = folder
        self.history = History(folder / "epochs.csv")

    def write(
        self, config: Config, dataset: Dataset, workers: Workers, summary: Mapping[str, float]
    ) -> None:
        """Writes ``args.json``, ``results.json``, the curves and ``report.html``.

        JSON has no NaN: what is undefined is left out there.

        Raises:
            UserError: a file cannot be written.
        """
        # matplotlib takes a second to import: only those who asked for curves wait for it.
        from vae.report.curves import draw_curves
        from vae.report.html import report_page

        self._write("args.json", json.dumps(as_json(config), indent=2) + "\n")
        defined = {name: value for name, value in summary.items() if math.isfinite(value)}
        self._write("results.json", json.dumps(defined, indent=2) + "\n")
        curves = draw_curves(self.history)
        for name, png in curves.items():
            self._write(f"{name}.png", png)
        facts = {
            "Data set": data_facts(dataset),
            "Hardware": machine_facts(workers),
            "Versions": version_facts(),
        }
        page = report_page(config, summary, curves, self.history.epochs(), facts)
        # A path may hold bytes that are no UTF-8.
        self._write("report.html", page.encode(errors="backslashreplace"))

    def _write(self, name: str, content: str | bytes) -> None:
        with written("--results_dir", self._folder / name):
            write_whole(self._folder / name, content)
