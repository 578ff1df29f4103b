"""``report.html``: one page on a run that needs no other file, no network and no script."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime
from html import escape
from typing import Any

from vae.cli import as_json
from vae.config import Config
from vae.metrics.ranking import METRICS, SELECTION_METRIC
from vae.report.environment import Metadata
from vae.utils.run_log import UNITS

_CAPTIONS = {
    "loss": "The objective, and the likelihood's part of it; means over the epoch's users.",
    "kl": "How far the users' latent distributions are from the prior, and how much that counts.",
    "validation": "Held-out users: shown a part of their items, the model is to find the others.",
    "throughput": "Users trained on per second, without validations and checkpoints.",
    "loss_scale": "Halved when a step's gradients overflow, doubled after a long time without.",
}

_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #5b6570; --line: #d9dee3; --back: #f4f6f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: white;
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
p { margin: .25rem 0; color: var(--soft); }
.columns { display: grid; gap: 1.5rem 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; } figure img { display: block; width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); font-weight: normal; }
th { color: var(--soft); } td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.scores { max-width: 40rem; } .scores td, .scores thead th + th { text-align: right;
  white-space: nowrap; } .scores td:nth-child(2) { font-weight: 600; }
@media (max-width: 36rem) { .scores { font-size: .8125rem; } .scores th, .scores td {
  padding-right: .5rem; } }
.changed td, .changed th { background: var(--back); color: var(--ink); font-weight: 600; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{date}</p>
{body}
</body>
</html>
"""


def report_page(
    config: Config,
    summary: Mapping[str, float],
    curves: Mapping[str, bytes],
    epochs: list[int],
    facts: Mapping[str, Metadata],
) -> str:
    """The page, as HTML.

    Args:
        config: the flags of the run.
        summary: the run's closing figures, by the names that the log uses.
        curves: PNG images by name.
        epochs: those that the curves show.
        facts: tables of what else is known, by their titles.
    """
    tables = [_table(title, rows) for title, rows in facts.items()]
    tables.insert(0, _table("Figures of this run", _closing_figures(summary)))
    body = [
        "<h2>Test</h2>",
        _scores(summary),
        "<h2>Learning curves</h2>",
        _about_curves(epochs),
        f'<div class="columns">{"".join(_image(*curve) for curve in curves.items())}</div>',
        "<h2>Metadata</h2>",
        f'<div class="columns">{"".join(tables)}</div>',
        "<h2>Flags</h2>",
        "<p>Those that differ from their defaults are marked.</p>",
        f'<div class="columns">{_flags(config)}</div>',
    ]
    return _PAGE.format(
        title=f"VAE-CF on {escape(config.dataset)}",
        style=_STYLE,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        body="\n".join(body),
    )


def _scores(summary: Mapping[str, float]) -> str:
    """The test's metrics beside those of the most popular items."""
    if f"test_{SELECTION_METRIC}" not in summary:
        return "<p>This run did not test the model: add --test.</p>"
    rows = []
    for name in METRICS:
        model, popular = (_with_error(summary, f"{kind}_{name}") for kind in ("test", "popularity"))
        baseline = summary[f"popularity_{name}"]
        ratio = f"{summary[f'test_{name}'] / baseline:.2f}" if baseline else "-"
        rows.append(f"<tr><th>{name}</th><td>{model}</td><td>{popular}</td><td>{ratio}</td></tr>")
    head = "<tr><th></th><th>model</th><th>most popular</th><th>ratio</th></tr>"
    return (
        f'<div class="wide"><table class="scores"><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f"<p>Means over {summary['test_users']:,} held-out users, ± one standard error.</p>"
    )


def _with_error(summary: Mapping[str, float], name: str) -> str:
    return f"{summary[name]:.5f} ± {summary[f'{name}_se']:.5f}"


def _about_curves(epochs: list[int]) -> str:
    if not epochs:
        return "<p>There are none: epochs.csv beside this page holds no epoch of training.</p>"
    missing = "; earlier ones were not recorded here" if epochs[0] > 1 else ""
    return f"<p>Epochs {epochs[0]} to {epochs[-1]}{missing}.</p>"


def _image(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="Curve of {name}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_CAPTIONS[name]}</figcaption></figure>"
    )


def _closing_figures(summary: Mapping[str, float]) -> Metadata:
    """What the table of the test does not show."""
    shown = tuple(f"{kind}_{name}" for kind in ("test", "popularity") for name in METRICS)
    return {
        name: f"{value:{',.0f' if value >= 1000 else '.5g'}} {UNITS.get(name) or ''}"
        for name, value in summary.items()
        if not name.startswith(shown)
    }


def _flags(config: Config) -> str:
    """Two tables of all flags, the changed ones marked."""
    rows = list(_flag_rows(config))
    middle = (len(rows) + 1) // 2
    return "".join(f"<table>{''.join(half)}</table>" for half in (rows[:middle], rows[middle:]))


def _flag_rows(config: Config) -> Iterator[str]:
    values: dict[str, Any] = as_json(config)
    for field in dataclasses.fields(config):
        changed = ' class="changed"' if getattr(config, field.name) != field.default else ""
        value = escape(_value(values[field.name]))
        yield f"<tr{changed}><th>--{field.name}</th><td>{value}</td></tr>"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _table(title: str, facts: Metadata) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"
