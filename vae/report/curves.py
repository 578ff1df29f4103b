"""Learning curves, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator

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


def draw_curves(epoch_log: EpochLog) -> dict[str, bytes]:
    """Draw a PNG image for each group of metrics that was logged; return the images by name."""
    return {name: _png(figure) for name, figure in _figures(epoch_log)}


def _figures(epoch_log: EpochLog) -> Iterator[tuple[str, Figure]]:
    if epoch_log.series("loss")[0]:
        yield "loss", _loss(epoch_log)
        yield "kl", _kl(epoch_log)
    if epoch_log.series(SELECTION_METRIC)[0]:
        yield "validation", _validation(epoch_log)
        yield "throughput", _throughput(epoch_log)
    if epoch_log.series("loss_scale")[0]:
        yield "loss_scale", _loss_scale(epoch_log)


def _loss(epoch_log: EpochLog) -> Figure:
    """Objective and negative log-likelihood."""
    figure, (axes,) = _panels(1, "Training loss")
    _line(axes, epoch_log, "loss", _COLOURS[0])
    _line(axes, epoch_log, "neg_log_likelihood", _COLOURS[1])
    axes.set_ylabel("nats per user")
    axes.legend()
    return figure


def _kl(epoch_log: EpochLog) -> Figure:
    """KL divergence above its weight, if that is the same for all users."""
    weighted = bool(epoch_log.series("kl_weight")[0])
    title = "KL divergence and its weight" if weighted else "KL divergence"
    figure, (above, *below) = _panels(1 + weighted, title)
    _line(above, epoch_log, "kl_divergence", _COLOURS[0])
    above.set_ylabel("nats per user")
    for axes in below:
        _line(axes, epoch_log, "kl_weight", _COLOURS[1])
        axes.set_ylabel("weight")
        axes.set_ylim(bottom=0)
    return figure


def _validation(epoch_log: EpochLog) -> Figure:
    """Metrics with bands of one standard error; the best validation is marked."""
    figure, (axes,) = _panels(1, "Validation (bands: ± one standard error)")
    for name, metric in METRICS.items():
        _line(axes, epoch_log, name, metric.colour)
        epochs, means = epoch_log.series(name)
        errors = dict(zip(*epoch_log.series(f"{name}_se"), strict=True))
        lower, upper = (
            [mean + sign * errors.get(epoch, 0) for epoch, mean in zip(epochs, means, strict=True)]
            for sign in (-1, 1)
        )
        axes.fill_between(epochs, lower, upper, color=metric.colour, alpha=0.15, linewidth=0)
    epochs, means = epoch_log.series(SELECTION_METRIC)
    best = max(range(len(means)), key=means.__getitem__)
    label = f"best {SELECTION_METRIC}: {means[best]:.4f} at epoch {epochs[best]}"
    axes.plot(
        epochs[best],
        means[best],
        "o",
        color=METRICS[SELECTION_METRIC].colour,
        fillstyle="none",
        ms=11,
        label=label,
    )
    axes.set_ylabel("mean over users")
    axes.legend()
    return figure


def _throughput(epoch_log: EpochLog) -> Figure:
    """Training throughput."""
    figure, (axes,) = _panels(1, "Training throughput")
    _line(axes, epoch_log, "train_throughput", _COLOURS[0])
    axes.set_ylabel("users per second")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def _loss_scale(epoch_log: EpochLog) -> Figure:
    """Loss scale of mixed precision, which keeps float16 gradients from underflowing."""
    figure, (axes,) = _panels(1, "Loss scale of mixed precision")
    _line(axes, epoch_log, "loss_scale", _COLOURS[0])
    axes.set_ylabel("factor")
    axes.set_yscale("log", base=2)
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
