"""Tables of a tested model beside other models, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vae.config import COMPARISONS
from vae.metrics.ranking import MAX_CUTOFF, METRICS, SELECTION_METRIC
from vae.metrics.user_results import EXPOSURE_METRICS, QUARTILE_METRICS, Comparison, quartile_bounds

_EXPOSURE_FORMATS = dict(zip(EXPOSURE_METRICS, (".1%", ".3f", ".1f"), strict=True))


def comparison_tables(comparison: Comparison) -> str:
    """Return tables of metrics, differences, what is recommended, and metrics by history length."""
    summary, others = comparison.summary(), comparison.others
    titles = ["model", *(COMPARISONS[name] for name in others)]
    models = ["test", *others]
    digits = 5 if len(others) < 4 else 4  # in 100 columns

    def means(metric: str, kinds: Sequence[str], sign: str = "") -> list[str]:
        keys = [f"{kind}_{metric}" for kind in kinds]
        return [
            f"{summary[key]:{sign}.{digits}f} ± {summary[f'{key}_se']:.{digits}f}" for key in keys
        ]

    lines = [
        f"Test on {len(comparison.lengths)} held-out users, {summary['test_users']} of them with "
        "targets:",
        *_table(titles, {metric: means(metric, models) for metric in METRICS}),
    ]
    if others:
        kinds = [f"test_minus_{name}" for name in others]
        lines += [
            "The model's score minus that of the baseline, user by user:",
            *_table(
                [f"- {title}" for title in titles[1:]],
                {metric: means(metric, kinds, "+") for metric in METRICS},
            ),
        ]
    exposure = {
        metric: [f"{summary[f'{name}_{metric}']:{text}}" for name in models]
        for metric, text in _EXPOSURE_FORMATS.items()
    }
    ranges = _length_ranges(comparison)
    lines += [
        f"What is recommended, among the best {MAX_CUTOFF} items of each user:",
        *_table(titles, exposure),
        f"{SELECTION_METRIC} by the number of items in the history:",
        *_table(titles, {text: means(metric, models) for metric, text in ranges.items()}),
    ]
    return "\n".join(lines)


def _length_ranges(comparison: Comparison) -> dict[str, str]:
    """Return the shortest and longest history of each quartile that has users with targets."""
    lengths = comparison.lengths
    bounds = quartile_bounds(lengths)
    first = [int(lengths.min()), *(bound + 1 for bound in bounds)]
    ranges = zip(QUARTILE_METRICS, first, [*bounds, int(lengths.max())], strict=True)
    quartiles = comparison.model.quartiles(lengths)
    return {metric: f"{a} to {b}" for metric, a, b in ranges if quartiles[metric].users}


def _table(titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    width = min(20, 80 // len(titles))
    return [
        f"{name:20}" + "".join(f"{cell:>{width}}" for cell in cells)
        for name, cells in {"": titles, **rows}.items()
    ]
