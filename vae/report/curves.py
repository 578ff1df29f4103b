"""Learning curves, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from vae.metrics.ranking import METRICS, SELECTION_METRIC
from vae.report.epoch_log import EpochLog

_WIDTH, _HEIGHT, _DPI = 6.4, 4.0, 144  # inches, inches, dots per inch
_COLOURS = ("#0072b2", "#d55e00")
"""Of Okabe and Ito, as those of ``METRICS``."""
_FEW_POINTS = 40
"""Curves of at most this many points get a marker at each."""


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


class _Panel(NamedTuple):
    """Values on one pair of axes: their names, label and, where it is another one, their scale."""

    names: tuple[str, ...]
    label: str
    set_scale: Callable[[Axes], object] = lambda axes: None


def _figures() -> dict[str, tuple[str, list[_Panel]]]:
    """Return the title and panels of each figure, by its name."""
    return {
        "loss": ("Training loss", [_Panel(("loss", "neg_log_likelihood"), "nats per user")]),
        "kl": (
            "KL divergence",
            [
                _Panel(("kl_divergence",), "nats per user"),
                _Panel(("kl_weight",), "weight", _from_zero),
            ],
        ),
        "validation": (
            "Validation (bands: ± one standard error)",
            [_Panel(tuple(METRICS), "mean over users")],
        ),
        "throughput": (
            "Training throughput",
            [_Panel(("train_throughput",), "users per second", _from_zero)],
        ),
        "loss_scale": (
            "Loss scale of mixed precision",
            [_Panel(("loss_scale",), "factor", lambda axes: axes.set_yscale("log", base=2))],
        ),
    }


def draw_curves(epoch_log: EpochLog) -> dict[str, bytes]:
    """Draw a PNG image for each figure of whose values some were logged; return them by name."""
    images = {}
    for name, (title, panels) in _figures().items():
        logged = [panel for panel in panels if epoch_log.series(panel.names[0])[0]]
        if logged:
            images[name] = _draw(epoch_log, title, logged)
    return images


def _draw(epoch_log: EpochLog, title: str, panels: list[_Panel]) -> bytes:
    """Return a PNG image of panels stacked on a shared axis of epochs."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    colours = iter(_COLOURS)
    stacked = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(stacked, panels, strict=True):
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        for name in panel.names:
            _line(axes, epoch_log, name, METRICS[name].colour if name in METRICS else next(colours))
        axes.set_ylabel(panel.label)
        panel.set_scale(axes)
        if len(panel.names) > 1:
            axes.legend()
    stacked[0].set_title(title, loc="left", fontsize=11)
    stacked[-1].set_xlabel("epoch")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _line(axes: Axes, epoch_log: EpochLog, name: str, colour: str) -> None:
    """Draw a curve, with a band of one standard error if it has one; mark the best validation."""
    epochs, values = epoch_log.series(name)
    marker = "." if len(epochs) <= _FEW_POINTS else ""
    axes.plot(epochs, values, color=colour, marker=marker, label=name.replace("_", " "))
    if errors := dict(zip(*epoch_log.series(f"{name}_se"), strict=True)):
        band = [errors.get(epoch, 0) for epoch in epochs]
        lower, upper = np.subtract(values, band), np.add(values, band)
        axes.fill_between(epochs, lower, upper, color=colour, alpha=0.15, linewidth=0)
    if name == SELECTION_METRIC:
        best, value = epochs[np.argmax(values)], max(values)
        label = f"best {name}: {value:.4f} at epoch {best}"
        axes.plot(best, value, "o", color=colour, fillstyle="none", ms=11, label=label)
