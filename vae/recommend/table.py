"""The table of recommendations: which columns it has, and its rows.

Shapes: B users, I items, K recommendations per user, N explaining items per recommendation.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray

from vae.load.dataset import Dataset
from vae.recommend.explain import Explanations
from vae.recommend.scores import Pairs, Ranking
from vae.recommend.titles import TEXT
from vae.utils.console import trimmed

SOURCES = ("model", "popular")
"""Sources of a recommendation; cold-start users, without a known item, get popular ones."""

_EXAMPLE_USERS, _EXAMPLE_ITEMS = 3, 3


class RecommendationTable:
    """The table of recommendations: user, item, rank, score, source; title and explanation, if any.

    Args:
        dataset: prepared data set with I items.
        titles: (I,) strings, NA for an item without a title; None for no column of titles.
        explains: whether there is a column of explanations.

    Attributes:
        user: name of the column of users, that of the ratings, or ``user`` if they have no header.
        item: name of the column of items, likewise.
        added: names of the other columns by their content; one that an id column has is renamed.
    """

    def __init__(
        self, dataset: Dataset, titles: pd.Series | None = None, explains: bool = False
    ) -> None:
        columns = dataset.columns
        self.user, self.item = (columns.user, columns.item) if columns.header else ("user", "item")
        contents = ["rank", "score", "source", *(["title"] if titles is not None else [])]
        contents += ["explanation"] if explains else []
        self.added = {content: free_name(content, {self.user, self.item}) for content in contents}
        self._item_ids, self._item_array = dataset.item_ids, _id_array(dataset.item_ids)
        self._titles = titles

    def schema(self, user_ids: NDArray[np.generic]) -> pa.Schema:
        """Return the names and types of the columns in the file."""
        ids = {self.user: user_ids, self.item: self._item_ids}
        types = {name: pa.from_numpy_dtype(values.dtype) for name, values in ids.items()}
        numbers = {"rank": pa.int32(), "score": pa.float32()}
        for content, name in self.added.items():
            types[name] = numbers.get(content, pa.string())
        return pa.schema(types)

    def frame(
        self,
        user_ids: NDArray[np.generic],
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
        is_cold_start: NDArray[np.bool_],
        explanations: Explanations | None = None,
    ) -> pd.DataFrame:
        """Return one row per recommendation, user by user, best first.

        Args:
            user_ids: (B,) raw ids.
            items: (B, K) item indices, -1 where there is no further recommendation.
            scores: (B, K) float32.
            is_cold_start: (B,) whether the user got popular items.
            explanations: of the items; None without a column of explanations.
        """
        user, rank = np.nonzero(items >= 0)
        item = items[user, rank]
        rows = {
            self.user: _id_array(user_ids).take(user),
            self.item: self._item_array.take(item),
            self.added["rank"]: rank.astype(np.int32) + 1,
            self.added["score"]: scores[user, rank],
            self.added["source"]: pd.array(SOURCES, TEXT).take(is_cold_start[user].astype(np.intp)),
        }
        if self._titles is not None:
            rows[self.added["title"]] = self._titles.array.take(item)
        if explanations is not None:
            texts = self._explain(explanations.items[user, rank], explanations.effects[user, rank])
            rows[self.added["explanation"]] = texts
        return pd.DataFrame(rows, copy=False)

    def scored(self, pairs: Pairs, scores: Ranking) -> pd.DataFrame:
        """Return a row for each of the pairs, whose scores are those of ``score_pairs``.

        What an item or a user does not have is missing: rank, score and source.
        """
        ranks, values, is_cold_start = scores
        source = np.where(np.isnan(values), -1, is_cold_start)
        rows = {
            self.user: _id_array(pairs.user_ids.values).take(pairs.user_ids.codes),
            self.item: _id_array(pairs.item_ids.values).take(pairs.item_ids.codes),
            self.added["rank"]: pd.arrays.IntegerArray(ranks, ranks == 0),
            self.added["score"]: values,
            self.added["source"]: pd.array(SOURCES, TEXT).take(source, allow_fill=True),
        }
        if self._titles is not None:
            rows[self.added["title"]] = self._titles.array.take(pairs.items, allow_fill=True)
        return pd.DataFrame(rows, copy=False)

    def examples(self, frame: pd.DataFrame) -> str:
        """Return the first recommendations of the first users, human-readable, in 100 columns."""
        explains = "explanation" in self.added
        what = ", with the history items that have the largest effect" if explains else ""
        lines = [f"For example{what}:"]
        best = frame[frame[self.added["rank"]] <= _EXAMPLE_ITEMS]
        # An explained recommendation takes a line.
        users = islice(best.groupby(self.user, sort=False), 1 if explains else _EXAMPLE_USERS)
        for user, rows in users:
            labels = self._labels(rows)
            if explains:
                explained = zip(labels, rows[self.added["explanation"]], strict=True)
                lines.append(f"  {self.user} {user}:")
                lines += [f"    {label}  <-  {items or 'nothing'}" for label, items in explained]
            else:
                lines.append(f"  {self.user} {user}: {'; '.join(labels)}")
        return "\n".join(map(trimmed, lines))

    def _explain(self, items: NDArray[np.int32], effects: NDArray[np.float32]) -> ExtensionArray:
        """Return the text of each explanation: titles or raw ids, with their effects.

        Args:
            items: (rows, N) item indices, -1 for none.
            effects: (rows, N) float32.
        """
        names = self._item_ids.astype(np.str_).astype(object)
        if self._titles is not None:
            has_title = (self._titles.fillna("") != "").to_numpy(bool)
            names[has_title] = self._titles[has_title].to_numpy(object)
        texts = [
            "; ".join(f"{names[item]} (+{effect:.3f})" for item, effect in pairs if item >= 0)
            for pairs in map(zip, items.tolist(), effects.tolist())
        ]
        return pd.array(texts, TEXT)

    def _labels(self, rows: pd.DataFrame) -> pd.Series:
        """Return the raw id and title, if any, of each row's item."""
        labels = rows[self.item].astype(TEXT)
        if self._titles is not None:
            labels = labels.str.cat(rows[self.added["title"]], sep=" ", na_rep="").str.rstrip()
        return labels


def free_name(name: str, taken: Collection[str]) -> str:
    """Prefix a name that is taken with ``vae_``."""
    while name in taken:
        name = f"vae_{name}"
    return name


def _id_array(ids: NDArray[np.generic]) -> ExtensionArray:
    """Return raw ids as pandas gathers them fastest."""
    return pd.Series(ids, dtype=TEXT if ids.dtype.kind == "U" else None).array
