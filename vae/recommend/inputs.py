"""What --recommend, --similar_items and --item_names name, read before a long run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vae.config import Config
from vae.load.dataset import Dataset
from vae.load.fold_in import UserHistories, read_histories
from vae.recommend.export import check_export
from vae.recommend.similar_items import find_item
from vae.recommend.titles import read_titles
from vae.utils.atomic import check_file


@dataclass(frozen=True)
class Inputs:
    """What the flags name, as far as they name anything.

    Attributes:
        histories: of the users in the file of ``--recommend``.
        similar_to: item index of ``--similar_items``.
        titles: (items,) strings from ``--item_names``, null where the file has none.
        descriptions: a sentence for the log on each file that was read.
    """

    histories: UserHistories | None = None
    similar_to: int | None = None
    titles: pa.Array | None = None
    descriptions: tuple[str, ...] = ()


def read_inputs(config: Config, dataset: Dataset) -> Inputs:
    """Read what the flags name, and make sure that what they ask for can be written at the end.

    Raises:
        UserError: a file cannot be read or does not fit the data set, there is no such item, or an
            output cannot be written.
    """
    if config.export is not None:
        check_export(config.export)
    if config.output is not None:
        check_file(config.output, "--output")
    for path in config.trace_paths:
        check_file(path, "--trace")
    item, names, source = config.similar_items, config.item_names, config.recommend
    similar_to = None if item is None else find_item(item, dataset)
    titles = None if names is None else read_titles(names, config.title_col, dataset)
    histories = read_histories(source, dataset) if isinstance(source, Path) else None
    descriptions = []
    if titles is not None:
        # Neither a null nor an empty title counts.
        titled = pc.sum(pc.not_equal(titles, "")).as_py()
        descriptions.append(f"Titles: {titled:,} of {len(titles):,} items.")
    if histories is not None:
        descriptions.append(f"{source}: {_counts(histories)}.")
    return Inputs(histories, similar_to, titles, tuple(descriptions))


def _counts(users: UserHistories) -> str:
    parts = [f"{users.users:,} users, {users.seen.nnz:,} known (user, item) pairs"]
    if disliked := users.seen.nnz - users.liked.nnz:
        parts.append(f"rated below the threshold: {disliked:,}")
    if users.unknown_items:
        parts.append(f"items unknown to the model, skipped: {users.unknown_items:,}")
    if users.line_breaks:
        parts.append(f"line breaks inside quoted values: {users.line_breaks:,}")
    return "; ".join(parts)
