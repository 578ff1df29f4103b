"""Inputs of ``--recommend``, ``--similar_items`` and ``--item_names``, read before a long run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vae.config import Config
from vae.load.dataset import Dataset
from vae.load.histories import UserHistories, prepared_user_ids, read_histories
from vae.load.item_filters import ItemList, Rules, read_item_list
from vae.recommend.export import check_export
from vae.recommend.similar_items import find_item
from vae.recommend.titles import read_titles
from vae.utils.outputs import check_file


@dataclass(frozen=True)
class Inputs:
    """What the flags name; None for a flag that is not used.

    Attributes:
        histories: users in the file of ``--recommend``.
        rules: items that are allowed and denied.
        titles: (I,) strings from ``--item_names``, NA for an item that the file does not have.
        descriptions: a sentence for the log on each file that was read.
    """

    histories: UserHistories | None = None
    rules: Rules = Rules()
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
    rules = Rules(
        _read_item_list("--allow", config.files.allow, dataset),
        _read_item_list("--deny", config.files.deny, dataset),
    )
    descriptions = []
    if titles is not None:
        titled = (titles.fillna("") != "").sum()
        descriptions.append(f"Titles: {titled:,} of {len(titles):,} items.")
    if histories is not None:
        descriptions += [f"{source}: {_counts(histories)}.", *histories.notes]
    if rules.are_given:
        user_ids = prepared_user_ids(dataset) if histories is None else histories.user_ids
        if rules.allow is not None:
            descriptions += rules.allow.describe(f"--allow {config.files.allow}", user_ids)
        if rules.deny is not None:
            descriptions += rules.deny.describe(f"--deny {config.files.deny}", user_ids)
    return Inputs(histories, rules, titles, tuple(descriptions))


def _read_item_list(flag: str, path: Path | None, dataset: Dataset) -> ItemList | None:
    if path is None:
        return None
    return read_item_list(path, flag, dataset, needs_items=flag == "--allow")


def _counts(users: UserHistories) -> str:
    counts = [f"{users.users:,} users, {users.seen.nnz:,} known interactions"]
    if disliked := users.seen.nnz - users.liked.nnz:
        counts.append(f"rated below the threshold: {disliked:,}")
    if users.unknown_items:
        counts.append(f"items unknown to the model, skipped: {users.unknown_items:,}")
    return "; ".join(counts)
