"""The table of recommendations: which columns it has, and its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray

from vae.load.dataset import Dataset
from vae.recommend.titles import TEXT

MODEL, POPULAR = "model", "popular"
"""Source of a recommendation; cold-start users, without a known item, get the most popular ones."""

_EXAMPLE_USERS, _EXAMPLE_ITEMS = 3, 5


@dataclass(frozen=True)
class RecommendationTable:
    """The table of recommendations: user, item, rank, score, source and, if known, title.

    Attributes:
        user: name of the column of users.
        item: name of the column of items.
        added: names of the other columns by their content.
        item_ids: (I,) raw ids.
        titles: (I,) strings, None without a file of titles.
    """

    user: str
    item: str
    added: Mapping[str, str]
    item_ids: NDArray[np.generic]
    titles: pd.Series | None

    @classmethod
    def of(cls, dataset: Dataset, titles: pd.Series | None) -> RecommendationTable:
        """Use the column names of the ratings, or ``user`` and ``item`` if they have no header.

        An added column with one of these names is renamed.
        """
        columns = dataset.columns
        user, item = (columns.user, columns.item) if columns.header else ("user", "item")
        contents = ["rank", "score", "source", *(["title"] if titles is not None else [])]
        added = {content: free_name(content, {user, item}) for content in contents}
        return cls(user, item, added, dataset.item_ids, titles)

    @property
    def renamed(self) -> dict[str, str]:
        """Added columns that do not have their usual name."""
        return {content: name for content, name in self.added.items() if name != content}

    def schema(self, user_ids: NDArray[np.generic]) -> pa.Schema:
        """Names and types of the columns in the file."""
        added = {"rank": pa.int32(), "score": pa.float32()}  # the others are strings
        return pa.schema(
            {
                self.user: pa.from_numpy_dtype(user_ids.dtype),
                self.item: pa.from_numpy_dtype(self.item_ids.dtype),
                **{name: added.get(content, pa.string()) for content, name in self.added.items()},
            }
        )

    def frame(
        self,
        user_ids: NDArray[np.generic],
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
        is_cold_start: NDArray[np.bool_],
    ) -> pd.DataFrame:
        """One row per recommendation, user by user, best first.

        Args:
            user_ids: (B,) raw ids.
            items: (B, K) item indices, -1 where there is no further recommendation.
            scores: (B, K) float32.
            is_cold_start: (B,) whether the user got popular items.
        """
        user, rank = np.nonzero(items >= 0)
        item = items[user, rank]
        added = {
            "rank": rank.astype(np.int32) + 1,
            "score": scores[user, rank],
            "source": pd.array([MODEL, POPULAR], TEXT).take(is_cold_start[user].astype(np.intp)),
        }
        if self.titles is not None:
            added["title"] = self.titles.array.take(item)
        ids = {
            self.user: _id_array(user_ids).take(user),
            self.item: _id_array(self.item_ids).take(item),
        }
        return pd.DataFrame(
            ids | {self.added[content]: values for content, values in added.items()}, copy=False
        )

    def examples(self, frame: pd.DataFrame) -> str:
        """The first recommendations of the first users, human-readable."""
        best = frame[frame[self.added["rank"]] <= _EXAMPLE_ITEMS]
        lists = best.groupby(self.user, sort=False)
        lines = [
            f"  {self.user} {user}: " + "; ".join(self._labels(rows))
            for user, rows in islice(lists, _EXAMPLE_USERS)
        ]
        return "\n".join(["For example:", *lines])

    def _labels(self, rows: pd.DataFrame) -> pd.Series:
        """Raw id and title, if any, of each row's item."""
        labels = rows[self.item].astype(TEXT)
        if self.titles is not None:
            labels = labels.str.cat(rows[self.added["title"]], sep=" ", na_rep="").str.rstrip()
        return labels


def _id_array(ids: NDArray[np.generic]) -> ExtensionArray:
    """Raw ids as pandas gathers them fastest."""
    return pd.Series(ids, dtype=TEXT if ids.dtype.kind == "U" else None).array


def free_name(name: str, taken: Collection[str]) -> str:
    """Prefix a name that is taken with ``vae_``."""
    while name in taken:
        name = f"vae_{name}"
    return name
