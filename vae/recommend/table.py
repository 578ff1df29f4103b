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
from vae.recommend.explain import Explanations
from vae.recommend.titles import TEXT
from vae.utils.console import trimmed

MODEL, POPULAR = "model", "popular"
"""Source of a recommendation; cold-start users, without a known item, get the most popular ones."""

_EXAMPLE_USERS, _EXAMPLE_ITEMS = 3, 3


@dataclass(frozen=True)
class RecommendationTable:
    """The table of recommendations: user, item, rank, score, source; title and explanation, if any.

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
    def of(
        cls, dataset: Dataset, titles: pd.Series | None, explains: bool = False
    ) -> RecommendationTable:
        """Use the column names of the ratings, or ``user`` and ``item`` if they have no header.

        An added column with one of these names is renamed.

        Args:
            dataset: prepared data set with I items.
            titles: (I,) strings, NA for an item without a title; None for no column of titles.
            explains: whether there is a column of explanations.
        """
        columns = dataset.columns
        user, item = (columns.user, columns.item) if columns.header else ("user", "item")
        contents = ["rank", "score", "source", *(["title"] if titles is not None else [])]
        contents += ["explanation"] if explains else []
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
        explanations: Explanations | None = None,
    ) -> pd.DataFrame:
        """One row per recommendation, user by user, best first.

        Args:
            user_ids: (B,) raw ids.
            items: (B, K) item indices, -1 where there is no further recommendation.
            scores: (B, K) float32.
            is_cold_start: (B,) whether the user got popular items.
            explanations: of the items; None without a column of explanations.
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
        if explanations is not None:
            reasons, changes = explanations
            added["explanation"] = self._explain(reasons[user, rank], changes[user, rank])
        ids = {
            self.user: _id_array(user_ids).take(user),
            self.item: _id_array(self.item_ids).take(item),
        }
        return pd.DataFrame(
            ids | {self.added[content]: values for content, values in added.items()}, copy=False
        )

    def examples(self, frame: pd.DataFrame) -> str:
        """The first recommendations of the first users, human-readable, in 100 columns."""
        explains = "explanation" in self.added
        best = frame[frame[self.added["rank"]] <= _EXAMPLE_ITEMS]
        # An explained recommendation takes a line.
        lists = islice(best.groupby(self.user, sort=False), 1 if explains else _EXAMPLE_USERS)
        if not explains:
            texts = [f"  {self.user} {user}: {'; '.join(self._labels(one))}" for user, one in lists]
            return "\n".join(["For example:", *map(trimmed, texts)])
        lines = ["For example, with the items that speak for each:"]
        for user, rows in lists:
            lines.append(f"  {self.user} {user}:")
            explained = zip(self._labels(rows), rows[self.added["explanation"]], strict=True)
            lines += [f"    {label}  <-  {reasons or 'nothing'}" for label, reasons in explained]
        return "\n".join(map(trimmed, lines))

    def _explain(self, reasons: NDArray[np.int32], changes: NDArray[np.float32]) -> ExtensionArray:
        """Return the text of each explanation: titles or raw ids, most important first.

        Args:
            reasons: (rows, N) item indices, -1 for none.
            changes: (rows, N) float32 falls of the log-probability.
        """
        names = self.item_ids.astype(np.str_).astype(object)
        if self.titles is not None:
            has_title = (self.titles.fillna("") != "").to_numpy(bool)
            names[has_title] = self.titles[has_title].to_numpy(object)
        texts = [
            "; ".join(
                f"{names[item]} (+{change:.3f})"
                for item, change in zip(items, falls, strict=True)
                if item >= 0
            )
            for items, falls in zip(reasons.tolist(), changes.tolist(), strict=True)
        ]
        return pd.array(texts, TEXT)

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
