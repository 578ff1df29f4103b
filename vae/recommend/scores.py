"""``--score``: the scores and ranks of given items for given users.

A rank counts the items that the user has not seen, so an item of the history has a score alone. A
user without a history here and an item that the model does not know have neither.

Shapes: P pairs of a user and an item, B users of a batch, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.histories import UserHistories, notes_of, sources_of
from vae.load.ids import find_ids, unknown_ids
from vae.load.reading.interactions import CodedIds, read_interactions

Ranking = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]
"""(B, K) item indices, best first, their (B, K) scores, and (B,) who is a cold start."""


@dataclass(frozen=True)
class Pairs:
    """Users and items to score, in the order of their table.

    Attributes:
        user_ids: raw ids of the users.
        item_ids: raw ids of the items.
        users: (P,) rows of the users among the histories, -1 for one without.
        items: (P,) item indices, -1 for an item that is not in the catalogue.
        notes: sentences on what was assumed about the file.
    """

    user_ids: CodedIds
    item_ids: CodedIds
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.users)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Return (P,) whether a pair gets a score."""
        return (self.users >= 0) & (self.items >= 0)

    def describe(self) -> str:
        """Return what was read, and what gets no score."""
        text = f"{len(self):,} users and items to score"
        for name, indices in (("users", self.users), ("items", self.items)):
            if unknown := (indices < 0).sum():
                text += f"; of unknown {name}, without a score: {unknown:,}"
        return text


def read_pairs(
    table: Path | pd.DataFrame, name: str, dataset: Dataset, users: UserHistories
) -> Pairs:
    """Read a table with the columns of users and items of the data set's ratings.

    Args:
        table: file, folder of files or data frame.
        name: flag or argument, for messages.
        dataset: data set that maps ids to item indices.
        users: the users who can be scored for.

    Raises:
        UserError: the table cannot be read, or no user or no item of a file is known.
    """
    advice = f"scores need the user and the item column of the ratings of {dataset.name}"
    try:
        sources, notes = sources_of(table, "the table", dataset.columns)
        columns = replace(dataset.columns, rating=None)
        read = read_interactions(sources, columns, advice=advice)
    except UserError as error:
        raise UserError(f"{name} {error}") from None
    rows = []
    for column, kind, ids, known in (
        (columns.user, f"a user with a history for {dataset.name}", read.users, users.user_ids),
        (columns.item, f"an item of {dataset.name}", read.items, dataset.item_ids),
    ):
        found = find_ids(ids.values, known)
        if isinstance(table, Path) and len(found) and (found < 0).all():
            raise unknown_ids(f"{name} {sources[0].path}", column, kind, ids.values, known)
        rows.append(found[ids.codes])
    return Pairs(read.users, read.items, rows[0], rows[1], (*notes, *notes_of(read)))


def score_pairs(
    pairs: Pairs, users: UserHistories, rank: Callable[[UserHistories], Iterator[Ranking]]
) -> Ranking:
    """Return (P,) ranks from 1, 0 for none, scores, NaN for none, and who is a cold start.

    Args:
        pairs: P pairs.
        users: the histories that they were read with.
        rank: ranks all I items but those seen, for some users, batch by batch.
    """
    ranks, scores = np.zeros(len(pairs), np.int32), np.full(len(pairs), np.nan, np.float32)
    is_cold_start = np.zeros(len(pairs), bool)
    known = np.flatnonzero(pairs.is_known)
    known = known[np.argsort(pairs.users[known], kind="stable")]
    wanted, rows = np.unique(pairs.users[known], return_inverse=True)
    liked, seen = users.liked[wanted], users.seen[wanted]
    nothing = csr_matrix(seen.shape, dtype=seen.dtype)
    all_items = replace(users, user_ids=users.user_ids[wanted], liked=liked, seen=nothing)
    first = 0
    for best, best_scores, is_cold in rank(all_items):
        start, end = np.searchsorted(rows, [first, first + len(best)])
        places, row, item = known[start:end], rows[start:end] - first, pairs.items[known[start:end]]
        is_new = seen[first : first + len(best)].toarray() == 0
        new_so_far = np.cumsum(np.take_along_axis(is_new, best, 1), axis=1, dtype=np.int32)
        position = np.empty_like(best)
        np.put_along_axis(position, best, np.arange(best.shape[1], dtype=np.int32)[np.newaxis], 1)
        at = row, position[row, item]
        ranks[places] = new_so_far[at] * is_new[row, item]
        scores[places], is_cold_start[places] = best_scores[at], is_cold[row]
        first += len(best)
    return ranks, scores, is_cold_start
