"""Learning curves, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.scale import LogScale
from matplotlib.ticker import MaxNLocator

from vae.metrics.ranking import METRICS, SELECTION_METRIC
from vae.report.epoch_log import EpochLog

_WIDTH, _HEIGHT, _DPI = 6.4, 4.0, 144  # inches, inches, dots per inch
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Colours of Okabe and Ito: distinct for colour-blind readers too. More curves repeat them."""
_FEW_POINTS = 40
"""Curves of at most this many points get a marker at each."""


_CURVES: dict[str, tuple[str, list[tuple[str, list[str], dict[str, Any]]]]] = {
    "loss": ("Training loss", [("nats per user", ["loss", "neg_log_likelihood"], {})]),
    "kl": (
        "KL divergence",
        [("nats per user", ["kl_divergence"], {}), ("weight", ["kl_weight"], {"ylim": (0, None)})],
    ),
    "throughput": (
        "Training throughput",
        [("users per second", ["train_throughput"], {"ylim": (0, None)})],
    ),
    "loss_scale": (
        "Loss scale of mixed precision",
        [("factor", ["loss_scale"], {"yscale": LogScale(None, base=2)})],
    ),
}
"""Title and panels of each image: label of the axis, log keys and further settings."""


def draw_curves(epoch_log: EpochLog) -> dict[str, bytes]:
    """Draw a PNG image for each group of metrics that was logged; return the images by name."""
    return {name: _png(figure) for name, figure in _figures(epoch_log)}


def _figures(epoch_log: EpochLog) -> Iterator[tuple[str, Figure]]:
    for name, (title, panels) in _CURVES.items():
        # The KL term of some models has no weight that is the same for all users.
        logged = [panel for panel in panels if epoch_log.series(panel[1][0])[0]]
        if logged:
            figure, all_axes = _panels(len(logged), title)
            for axes, (label, keys, settings) in zip(all_axes, logged, strict=True):
                for key, colour in zip(keys, _COLOURS, strict=False):
                    _line(axes, epoch_log, key, colour)
                axes.set(ylabel=label, **settings)
                if len(keys) > 1:
                    axes.legend()
            yield name, figure
    if epoch_log.series(SELECTION_METRIC)[0]:
        yield "validation", _validation(epoch_log)


def _validation(epoch_log: EpochLog) -> Figure:
    """Metrics with bands of one standard error; the best validation is marked."""
    figure, (axes,) = _panels(1, "Validation (bands: ± one standard error)")
    for name, colour in zip(METRICS, cycle(_COLOURS), strict=False):
        _line(axes, epoch_log, name, colour)
        epochs, means = epoch_log.series(name)
        errors = dict(zip(*epoch_log.series(f"{name}_se"), strict=True))
        lower, upper = (
            [mean + sign * errors.get(epoch, 0) for epoch, mean in zip(epochs, means, strict=True)]
            for sign in (-1, 1)
        )
        axes.fill_between(epochs, lower, upper, color=colour, alpha=0.15, linewidth=0)
    epochs, means = epoch_log.series(SELECTION_METRIC)
    best = max(range(len(means)), key=means.__getitem__)
    label = f"best {SELECTION_METRIC}: {means[best]:.4f} at epoch {epochs[best]}"
    axes.plot(
        epochs[best], means[best], "o", color=_COLOURS[0], fillstyle="none", ms=11, label=label
    )
    axes.set_ylabel("mean over users")
    axes.legend()
    return figure


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """Figure with panels stacked on a shared axis of epochs."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    panels: list[Axes] = [*figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]]
    for axes in panels:
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    panels[0].set_title(title, loc="left", fontsize=11)
    panels[-1].set_xlabel("epoch")
    return figure, panels


def _line(axes: Axes, epoch_log: EpochLog, name: str, colour: str) -> None:
    epochs, values = epoch_log.series(name)
    marker = "." if len(epochs) <= _FEW_POINTS else ""
    axes.plot(epochs, values, color=colour, marker=marker, label=name.replace("_", " "))


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
