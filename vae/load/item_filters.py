"""Rules on what may be recommended: items that are allowed or denied, to everybody or by user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.histories import find_ids, sources_of, unknown_ids
from vae.load.reading.interactions import read_interactions


@dataclass(frozen=True)
class ItemList:
    """Items of the catalogue, the same for everybody or those of each user.

    Attributes:
        items: (1, I) uint8 ones for everybody; or (users + 1, I), the last row of which is empty.
        user_ids: (users,) distinct raw ids; None for everybody.
        unknown_items: number of distinct items that are not in the catalogue.
        notes: sentences on what was assumed about the files.
    """

    items: csr_matrix
    user_ids: NDArray[np.generic] | None = None
    unknown_items: int = 0
    notes: tuple[str, ...] = ()

    def of_users(self, user_ids: NDArray[np.generic]) -> csr_matrix:
        """Return the items of each user; none for a user who is not listed.

        Args:
            user_ids: (B,) raw ids.

        Returns:
            (B, I) uint8 ones.
        """
        assert self.user_ids is not None
        return self.items[find_ids(user_ids, self.user_ids)]  # -1 is the last row

    def describe(self, flag: str, user_ids: NDArray[np.generic]) -> list[str]:
        """Return sentences on what was read and what was skipped.

        Args:
            flag: flag and file.
            user_ids: raw ids of the users to recommend to.
        """
        if self.user_ids is None:
            parts = [f"{self.items.nnz:,} items for everybody"]
        else:
            parts = [f"{self.items.nnz:,} items of {len(self.user_ids):,} users"]
        if self.unknown_items:
            parts.append(f"items unknown to the model, skipped: {self.unknown_items:,}")
        if self.user_ids is not None and len(user_ids):
            strangers = int((find_ids(self.user_ids, user_ids) < 0).sum())
            if strangers:
                parts.append(f"users without a history to recommend for, skipped: {strangers:,}")
        return [f"{flag}: {'; '.join(parts)}.", *self.notes]


@dataclass(frozen=True)
class Rules:
    """What may be recommended: allowed items that are not denied.

    Attributes:
        allow: the allowed items; None for all. A user who is not in a list by user gets nothing.
        deny: items that are not recommended; None for none.
    """

    allow: ItemList | None = None
    deny: ItemList | None = None

    @property
    def are_given(self) -> bool:
        """Return whether there is any rule."""
        return self.allow is not None or self.deny is not None

    def excluded(self) -> NDArray[np.bool_] | None:
        """Return (I,) bool, the items that nobody gets; None if there are none."""
        masks = []
        if self.allow is not None and self.allow.user_ids is None:
            masks.append(self.allow.items.toarray()[0] == 0)
        if self.deny is not None and self.deny.user_ids is None:
            masks.append(self.deny.items.toarray()[0] != 0)
        return np.logical_or.reduce(masks) if masks else None

    def allowed(self, user_ids: NDArray[np.generic]) -> csr_matrix | None:
        """Return the (B, I) items that users are allowed, None unless they are listed by user."""
        by_user = self.allow is not None and self.allow.user_ids is not None
        return self.allow.of_users(user_ids) if self.allow is not None and by_user else None

    def denied(self, user_ids: NDArray[np.generic]) -> csr_matrix | None:
        """Return the (B, I) items that users are denied, None unless they are listed by user."""
        by_user = self.deny is not None and self.deny.user_ids is not None
        return self.deny.of_users(user_ids) if self.deny is not None and by_user else None


def read_item_list(
    table: Path | pd.DataFrame, name: str, dataset: Dataset, needs_items: bool
) -> ItemList:
    """Read the items of ``--allow`` or ``--deny``.

    Args:
        table: file, folder of files or data frame with the item column of the ratings, and with
            their user column if the items are listed by user. A file without a header row may have
            the column of items alone.
        name: flag or argument, for messages.
        dataset: data set that maps ids to item indices.
        needs_items: whether to refuse a list without any item of the catalogue.

    Raises:
        UserError: the table cannot be read, or has no item although one is needed.
    """
    advice = (
        f"a list of items has the item column of the ratings of {dataset.name} and, for rules by "
        "user, their user column"
    )
    try:
        sources, notes = sources_of(table, "the table", dataset.columns)
        columns = replace(dataset.columns, rating=None)
        found = read_interactions(
            sources,
            columns,
            optional=columns.user,
            allow_single_column=columns.item,
            advice=advice,
        )
    except UserError as error:
        raise UserError(f"{name} {error}") from None
    indices = find_ids(found.items.values, dataset.item_ids)
    unknown = int((indices < 0).sum())
    if needs_items and unknown == len(indices):
        where = f"{name} {sources[0].path}"
        if not unknown:
            raise UserError(f"{where}: has no rows.")
        kind = f"an item of {dataset.name}"
        raise unknown_ids(where, dataset.columns.item, kind, found.items.values, dataset.item_ids)
    items = indices[found.items.codes]
    by_user = len(found.users.codes) > 0
    users = found.users.codes if by_user else np.zeros(len(items), np.int32)
    rows = len(found.users.values) + 1 if by_user else 1
    is_known = items >= 0
    ones = np.ones(int(is_known.sum()), bool)
    matrix = coo_matrix((ones, (users[is_known], items[is_known])), (rows, len(dataset.item_ids)))
    if found.rows_missing:
        notes.append(f"{found.rows_missing:,} rows with a missing value dropped.")
    return ItemList(
        matrix.tocsr().astype(np.uint8),
        found.users.values if by_user else None,
        unknown,
        (*notes, *found.notes),
    )
