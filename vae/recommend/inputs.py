"""What --recommend, --similar_items and --item_names name, read before a long run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vae.config import Config
from vae.load import Dataset
from vae.load.fold_in import UserHistories, read_histories
from vae.recommend.similar_items import find_item
from vae.recommend.titles import read_titles


@dataclass(frozen=True)
class Inputs:
    """What the flags name, as far as they name anything.

    Attributes:
        histories: of the users in the file of ``--recommend``.
        similar_to: item index of ``--similar_items``.
        titles: (items,) strings from ``--item_names``, null where the file has none.
    """

    histories: UserHistories | None = None
    similar_to: int | None = None
    titles: pa.Array | None = None


def read_inputs(config: Config, dataset: Dataset) -> Inputs:
    """Read what the flags name; no flag, no input.

    Raises:
        UserError: a file cannot be read or does not fit the data set, or there is no such item.
    """
    item, names, source = config.similar_items, config.item_names, config.recommend
    return Inputs(
        similar_to=None if item is None else find_item(item, dataset),
        titles=None if names is None else read_titles(names, config.title_col, dataset),
        histories=read_histories(source, dataset) if isinstance(source, Path) else None,
    )


def describe(config: Config, inputs: Inputs) -> Iterator[str]:
    """A sentence for the log on each file that was read."""
    if inputs.titles is not None:
        # Neither a null nor an empty title counts.
        titled = pc.sum(pc.not_equal(inputs.titles, "")).as_py()
        yield f"Titles: {titled:,} of {len(inputs.titles):,} items."
    if inputs.histories is not None:
        yield f"{config.recommend}: {_counts(inputs.histories)}."


def _counts(users: UserHistories) -> str:
    parts = [f"{users.users:,} users, {users.seen.nnz:,} known (user, item) pairs"]
    if disliked := users.seen.nnz - users.liked.nnz:
        parts.append(f"rated below the threshold: {disliked:,}")
    if users.unknown_items:
        parts.append(f"items unknown to the model, skipped: {users.unknown_items:,}")
    if users.line_breaks:
        parts.append(f"line breaks inside quoted values: {users.line_breaks:,}")
    return "; ".join(parts)
