"""``--allow`` and ``--deny``: which items may be recommended, to all users or by user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.errors import UserError
from vae.load.dataset import Dataset, ones_at
from vae.load.histories import notes_of, sources_of
from vae.load.ids import find_ids, unknown_ids
from vae.load.reading.interactions import read_interactions


@dataclass(frozen=True)
class ItemFilter:
    """Items of the catalogue, the same for all users or those of each user.

    Attributes:
        items: (1, I) uint8 ones for all users; or (users + 1, I), the last row of which is empty.
        user_ids: (users,) distinct raw ids; None for all users.
        unknown_items: number of distinct items that are not in the catalogue.
        notes: sentences on what was assumed about the files.
    """

    items: csr_matrix
    user_ids: NDArray[np.generic] | None = None
    unknown_items: int = 0
    notes: tuple[str, ...] = ()

    def of_users(self, user_ids: NDArray[np.generic]) -> csr_matrix | None:
        """Return the (B, I) items of users, none for one who is not in the file.

        None if the items are those of all users.
        """
        if self.user_ids is None:
            return None
        return self.items[find_ids(user_ids, self.user_ids)]  # -1 is the last row

    def describe(self, flag: str, user_ids: NDArray[np.generic]) -> list[str]:
        """Return sentences on what was read and skipped, for (B,) users to recommend to."""
        whose = "for all users" if self.user_ids is None else f"of {len(self.user_ids):,} users"
        parts = [f"{self.items.nnz:,} items {whose}"]
        if self.unknown_items:
            parts.append(f"items unknown to the model, skipped: {self.unknown_items:,}")
        if self.user_ids is not None and len(user_ids):
            users = np.count_nonzero(find_ids(self.user_ids, user_ids) < 0)
            if users:
                parts.append(f"users without a history to recommend for, skipped: {users:,}")
        return [f"{flag}: {'; '.join(parts)}.", *self.notes]


@dataclass(frozen=True)
class ItemFilters:
    """What may be recommended: allowed items that are not denied.

    Attributes:
        allow: the allowed items; None for all. By user, one who is not in the file gets nothing.
        deny: items that are not recommended; None for none.
    """

    allow: ItemFilter | None = None
    deny: ItemFilter | None = None

    @property
    def are_given(self) -> bool:
        """Return whether there is any."""
        return self.allow is not None or self.deny is not None

    def excluded(self) -> NDArray[np.bool_] | None:
        """Return (I,) bool, the items that no user gets; None if there are none."""
        masks = []
        if self.allow is not None and self.allow.user_ids is None:
            masks.append(self.allow.items.toarray()[0] == 0)
        if self.deny is not None and self.deny.user_ids is None:
            masks.append(self.deny.items.toarray()[0] != 0)
        return np.logical_or.reduce(masks) if masks else None

    def allowed(self, user_ids: NDArray[np.generic]) -> csr_matrix | None:
        """Return the (B, I) items that users are allowed, None unless that is set by user."""
        return None if self.allow is None else self.allow.of_users(user_ids)

    def denied(self, user_ids: NDArray[np.generic]) -> csr_matrix | None:
        """Return the (B, I) items that users are denied, None unless that is set by user."""
        return None if self.deny is None else self.deny.of_users(user_ids)


def read_item_filter(
    table: Path | pd.DataFrame, name: str, dataset: Dataset, needs_items: bool
) -> ItemFilter:
    """Read the items of ``--allow`` or ``--deny``.

    Args:
        table: file, folder of files or data frame with the item column of the ratings, and with
            their user column if the items are set by user. A file without a header row may have
            the column of items alone.
        name: flag or argument, for messages.
        dataset: data set that maps ids to item indices.
        needs_items: whether to refuse a filter without any item of the catalogue.

    Raises:
        UserError: the table cannot be read, or has no item although one is needed.
    """
    advice = (
        f"a filter has the item column of the ratings of {dataset.name} and, to filter by user, "
        "their user column"
    )
    try:
        sources, notes = sources_of(table, "the table", dataset.columns)
        columns = replace(dataset.columns, rating=None)
        optional, alone = columns.user, columns.item
        interactions = read_interactions(
            sources, columns, optional=optional, allow_single_column=alone, advice=advice
        )
    except UserError as error:
        raise UserError(f"{name} {error}") from None
    users, items = interactions.users, interactions.items
    indices = find_ids(items.values, dataset.item_ids)
    unknown = int((indices < 0).sum())
    if needs_items and unknown == len(indices):
        where = f"{name} {sources[0].path}"
        if not unknown:
            raise UserError(f"{where}: has no rows.")
        kind = f"an item of {dataset.name}"
        raise unknown_ids(where, dataset.columns.item, kind, items.values, dataset.item_ids)
    item_indices = indices[items.codes]
    by_user = len(users.codes) > 0
    rows = users.codes if by_user else np.zeros(len(item_indices), np.int32)
    shape = (len(users.values) + 1 if by_user else 1, len(dataset.item_ids))
    is_known = item_indices >= 0
    return ItemFilter(
        ones_at(rows[is_known], item_indices[is_known], shape),
        users.values if by_user else None,
        unknown,
        (*notes, *notes_of(interactions)),
    )
