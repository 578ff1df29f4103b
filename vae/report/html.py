"""``report.html``: a self-contained page on a run, without network access or scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vae.cli import as_json, changed_values
from vae.config import COMPARISONS, Config
from vae.metrics.ranking import METRICS, SELECTION_METRIC
from vae.metrics.user_results import EXPOSURE_METRICS, QUARTILE_METRICS
from vae.report.console_lines import unit_of
from vae.report.environment import Metadata

_CAPTIONS = {
    "loss": "The objective and its negative log-likelihood; means over the epoch's users.",
    "kl": "KL divergence of the users' latent distributions from the prior, and its weight.",
    "validation": "Validation users: ranking of their targets, given their fold-in items.",
    "throughput": "Training users per second, without validations and checkpoints.",
    "loss_scale": "Halved when gradients overflow, doubled after many steps without overflow.",
}


def report_page(
    config: Config,
    summary: Mapping[str, float],
    curves: Mapping[str, bytes],
    epochs: list[int],
    metadata: Mapping[str, Metadata],
) -> str:
    """Render ``report.html.j2``, which lies beside this module.

    It shows the summary, PNG images of the curves of the epochs, the metadata and the flags.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template("report.html.j2").render(
        title=f"VAE-CF on {config.files.dataset}",
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        scores=_scores(summary),
        test_users=f"{summary.get('test_users', 0):,}",
        epochs=epochs,
        curves=[
            (name, base64.b64encode(curves[name]).decode(), caption)
            for name, caption in _CAPTIONS.items()
            if name in curves
        ],
        tables={"Metrics and statistics": _statistics(summary), **metadata},
        flags=[(f"--{name}", _value(value)) for name, value in as_json(config).items()],
        changed_flags={f"--{name}" for name in changed_values(config)},
    )
    return page


def _scores(summary: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the test table: each metric of the model and of each baseline.

    Beside a baseline's metric stands the difference to the model's, user by user.
    """
    baselines = [name for name in COMPARISONS if f"{name}_{SELECTION_METRIC}" in summary]
    titles = {"test": "model"}
    for name in baselines:
        titles |= {name: COMPARISONS[name], f"test_minus_{name}": f"model - {COMPARISONS[name]}"}
    rows = [
        [metric, *(_cell(summary, f"{kind}_{metric}") for kind in titles)]
        for metric in (*METRICS, *QUARTILE_METRICS, *EXPOSURE_METRICS)
        if f"test_{metric}" in summary
    ]
    return [*titles.values()], rows


def _cell(summary: Mapping[str, float], name: str) -> str:
    if name not in summary:  # only the metrics have a difference
        return ""
    if f"{name}_se" not in summary:
        return f"{summary[name]:.4g}"
    sign = "+" if name.startswith("test_minus_") else ""
    return f"{summary[name]:{sign}.5f} ± {summary[f'{name}_se']:.5f}"


def _statistics(summary: Mapping[str, float]) -> Metadata:
    """Entries of the summary that the test table does not show, with their units."""
    kinds = ("test", *COMPARISONS, *(f"test_minus_{name}" for name in COMPARISONS))
    names = (*METRICS, *QUARTILE_METRICS, *EXPOSURE_METRICS)
    tested = tuple(f"{kind}_{name}" for kind in kinds for name in names)
    return {
        name: f"{value:{',.0f' if value >= 1000 else '.5g'}} {unit_of(name) or ''}"
        for name, value in summary.items()
        if not name.startswith(tested)
    }


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
