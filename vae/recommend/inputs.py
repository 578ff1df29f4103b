"""What is read beside the data set, and checks of what will be written, before a long run.

Raises:
    UserError: a file cannot be read or does not fit the data set, or an output cannot be written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa

from vae.config import Files, Modes
from vae.errors import UserError, one_line
from vae.load.dataset import Dataset
from vae.load.histories import UserHistories, prepared_histories, read_histories
from vae.load.ids import find_item
from vae.load.item_filters import ItemFilters, read_item_filter
from vae.recommend.export import check_export
from vae.recommend.scores import Pairs, read_pairs
from vae.recommend.table import RecommendationTable
from vae.recommend.titles import read_titles
from vae.utils.outputs import check_file

PathLike: TypeAlias = str | os.PathLike[str]
Rows: TypeAlias = pd.DataFrame | pa.Table | PathLike | Iterable[Any]
"""A table or file with the columns of the ratings; or raw ids of items."""


@dataclass(frozen=True)
class Inputs:
    """What the flags name; None for a flag that is not used.

    Attributes:
        histories: users in the file of ``--recommend``.
        pairs: users and items in the file of ``--score``.
        filters: items that are allowed and denied.
        titles: (I,) strings from ``--item_names``, NA for an item that the file does not have.
        descriptions: a sentence for the log on each file that was read.
    """

    histories: UserHistories | None = None
    pairs: Pairs | None = None
    filters: ItemFilters = ItemFilters()
    titles: pd.Series | None = None
    descriptions: tuple[str, ...] = ()


def check_outputs(modes: Modes, files: Files, traces: Iterable[Path]) -> None:
    """Check that the outputs of the modes, and the timelines of ``--trace``, can be written."""
    if modes.export is not None:
        check_export(modes.export)
    outputs = {
        "--output": files.output,
        "--export_items": modes.export_items,
        "--export_users": modes.export_users,
    }
    for flag, path in [*outputs.items(), *(("--trace", path) for path in traces)]:
        if path is not None:
            check_file(path, flag)


def read_inputs(modes: Modes, files: Files, dataset: Dataset) -> Inputs:
    """Read the inputs that the flags name."""
    if modes.similar_items is not None:
        find_item(modes.similar_items, dataset)
    titles, histories, pairs, descriptions = None, None, None, []
    if files.item_names is not None:
        titles = read_titles(files.item_names, files.title_col, dataset, files.item_names_col)
        titled = (titles.fillna("") != "").sum()
        descriptions.append(f"Titles: {titled:,} of {len(titles):,} items.")
    if isinstance(modes.recommend, Path):
        histories = read_histories(modes.recommend, dataset)
        descriptions += [f"{modes.recommend}: {_counts(histories)}.", *histories.notes]
    if modes.score is not None:
        users = histories or prepared_histories(dataset)
        pairs = read_pairs(modes.score, "--score", dataset, users)
        descriptions += [f"--score {modes.score}: {pairs.describe()}.", *pairs.notes]
    named = {"allow": files.allow, "deny": files.deny}
    paths = {name: path for name, path in named.items() if path is not None}
    filters = read_filters(paths, dataset, "--")
    if paths:
        user_ids = dataset.all_user_ids() if histories is None else histories.user_ids
        for name, path in paths.items():
            descriptions += getattr(filters, name).describe(f"--{name} {path}", user_ids)
    return Inputs(histories, pairs, filters, titles, tuple(descriptions))


def read_filters(
    tables: Mapping[str, Path | pd.DataFrame], dataset: Dataset, prefix: str = ""
) -> ItemFilters:
    """Read ``allow`` and ``deny``, as far as they are given; ``prefix`` makes them flags."""
    filters = {
        name: read_item_filter(table, f"{prefix}{name}", dataset, needs_items=name == "allow")
        for name, table in tables.items()
    }
    return ItemFilters(**filters)


def as_table(
    rows: Rows, name: str, table: RecommendationTable, constants: Mapping[str, Any] | None = None
) -> pd.DataFrame | Path:
    """Return an argument from Python as what the readers take.

    Args:
        rows: the argument.
        name: its name.
        table: names of the columns of ids.
        constants: columns to put beside a list of items, with their value.
    """
    if isinstance(rows, pd.DataFrame):
        return rows
    if isinstance(rows, str | os.PathLike):
        return Path(rows)
    if isinstance(rows, pa.Table | pa.RecordBatch):
        return rows.to_pandas(types_mapper=pd.ArrowDtype)  # integers stay integers
    if not isinstance(rows, bytes | Mapping):
        with suppress(TypeError):  # it has no elements
            return pd.DataFrame({**(constants or {}), table.item: list(rows)})
    raise UserError(
        f"{name} is {one_line(repr(rows))}; pass a list of item ids, or a table or file with "
        f"the columns {table.user!r} and {table.item!r}."
    )


def _counts(users: UserHistories) -> str:
    counts = [f"{users.users:,} users, {users.seen.nnz:,} known interactions"]
    if disliked := users.seen.nnz - users.liked.nnz:
        counts.append(f"rated below the threshold: {disliked:,}")
    if users.unknown_items:
        counts.append(f"items unknown to the model, skipped: {users.unknown_items:,}")
    return "; ".join(counts)
