"""Inputs of ``--recommend``, ``--similar_items`` and ``--item_names``, read before a long run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vae.config import Config
from vae.load.dataset import Dataset
from vae.load.histories import UserHistories, read_histories
from vae.load.ids import find_item
from vae.load.item_filters import ItemFilter, ItemFilters, read_item_filter
from vae.recommend.export import check_export
from vae.recommend.titles import read_titles
from vae.utils.outputs import check_file


@dataclass(frozen=True)
class Inputs:
    """What the flags name; None for a flag that is not used.

    Attributes:
        histories: users in the file of ``--recommend``.
        filters: items that are allowed and denied.
        titles: (I,) strings from ``--item_names``, NA for an item that the file does not have.
        descriptions: a sentence for the log on each file that was read.
    """

    histories: UserHistories | None = None
    filters: ItemFilters = ItemFilters()
    titles: pd.Series | None = None
    descriptions: tuple[str, ...] = ()


def read_inputs(config: Config, dataset: Dataset) -> Inputs:
    """Read the inputs that the flags name, and check that the outputs can be written.

    Raises:
        UserError: a file cannot be read or does not fit the data set, the data set has no such
            item, or an output cannot be written.
    """
    if config.modes.export is not None:
        check_export(config.modes.export)
    if config.files.output is not None:
        check_file(config.files.output, "--output")
    if config.modes.export_items is not None:
        check_file(config.modes.export_items, "--export_items")
    for path in config.trace_paths.values():
        check_file(path, "--trace")
    item, names, source = (
        config.modes.similar_items,
        config.files.item_names,
        config.modes.recommend,
    )
    if item is not None:
        find_item(item, dataset)
    titles = (
        None
        if names is None
        else read_titles(names, config.files.title_col, dataset, config.files.item_names_col)
    )
    histories = read_histories(source, dataset) if isinstance(source, Path) else None
    filters = ItemFilters(
        _read_filter("--allow", config.files.allow, dataset),
        _read_filter("--deny", config.files.deny, dataset),
    )
    descriptions = []
    if titles is not None:
        titled = (titles.fillna("") != "").sum()
        descriptions.append(f"Titles: {titled:,} of {len(titles):,} items.")
    if histories is not None:
        descriptions += [f"{source}: {_counts(histories)}.", *histories.notes]
    if filters.are_given:
        user_ids = dataset.all_user_ids() if histories is None else histories.user_ids
        if filters.allow is not None:
            descriptions += filters.allow.describe(f"--allow {config.files.allow}", user_ids)
        if filters.deny is not None:
            descriptions += filters.deny.describe(f"--deny {config.files.deny}", user_ids)
    return Inputs(histories, filters, titles, tuple(descriptions))


def _read_filter(flag: str, path: Path | None, dataset: Dataset) -> ItemFilter | None:
    if path is None:
        return None
    return read_item_filter(path, flag, dataset, needs_items=flag == "--allow")


def _counts(users: UserHistories) -> str:
    counts = [f"{users.users:,} users, {users.seen.nnz:,} known interactions"]
    if disliked := users.seen.nnz - users.liked.nnz:
        counts.append(f"rated below the threshold: {disliked:,}")
    if users.unknown_items:
        counts.append(f"items unknown to the model, skipped: {users.unknown_items:,}")
    return "; ".join(counts)
