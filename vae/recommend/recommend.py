"""``--recommend``: the best unseen items of each user, in raw ids, streamed into a file."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray

from vae.baselines.popularity import popularity_scores, recommend_popular
from vae.config import Config
from vae.load.dataset import Dataset
from vae.load.fold_in import UserHistories
from vae.models.precision import choose_precision
from vae.models.sparse_input import feed
from vae.models.trained_model import TrainedModel, open_inference_session
from vae.recommend.titles import TEXT
from vae.recommend.writer import table_writer
from vae.utils.distributed import Workers
from vae.utils.run_log import RunLog

_EXAMPLE_USERS, _EXAMPLE_ITEMS = 3, 5

MODEL, POPULAR = "model", "popular"
"""Source of a recommendation; cold-start users, without a known item, get the most popular ones."""


def recommend(
    config: Config,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
    model: TrainedModel,
    users: UserHistories,
    titles: pd.Series | None = None,
) -> dict[str, float]:
    """Write recommendations for all users to ``--output``.

    Args:
        config: flags: number of items per user, batch size, precision, file.
        dataset: prepared data set that the model was trained on, with I items.
        workers: workers of the run; to be called on rank 0 alone.
        log: run log.
        model: trained model.
        users: histories of the users to recommend for.
        titles: (I,) strings, NA for an item without a title; None to write no titles.

    Returns:
        Number of users, number of cold-start users, and users per second, by their log keys.

    Raises:
        UserError: the file cannot be written.
    """
    assert config.output is not None
    start = time.perf_counter()
    cold_start_users = _write(config, dataset, workers, log, model, users, titles)
    seconds = time.perf_counter() - start
    log.say(f"Recommendations for {users.users:,} users: {config.output}")
    return {
        "recommend_users": users.users,
        "recommend_popular_users": cold_start_users,
        "recommend_throughput": users.users / seconds,
    }


def _write(
    config: Config,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
    model: TrainedModel,
    users: UserHistories,
    titles: pd.Series | None,
) -> int:
    """Recommend and write batch by batch; return the number of cold-start users."""
    assert config.output is not None
    table = _Table.of(dataset, titles)
    if table.renamed:
        log.say(
            "Columns renamed because the ratings file uses their names: "
            f"{', '.join(f'{name} as {other}' for name, other in table.renamed.items())}."
        )
    precision = choose_precision(config.amp)
    log.say(f"Precision of inference: {precision.description}.")
    popular_scores = popularity_scores(dataset.train)
    k, batch_size = min(config.top_results, model.architecture.items), config.batch_size_validation
    cold_start_users = 0
    with (
        open_inference_session(
            config, workers, model, k, batch_size, precision, separate_seen=True
        ) as (session, graph),
        table_writer(config.output, table.schema(users.user_ids)) as write,
    ):
        for first in range(0, users.users, batch_size):
            batch = slice(first, first + batch_size)
            liked, seen = users.liked[batch], users.seen[batch]
            items, scores = session.run(
                [graph.items, graph.scores],
                feed(graph.histories, liked) | feed(graph.seen, seen),
            )
            is_cold_start = np.diff(liked.indptr) == 0
            if is_cold_start.any():
                items[is_cold_start] = recommend_popular(dataset.train, seen[is_cold_start], k)
                scores[is_cold_start] = popular_scores[items[is_cold_start]]
                cold_start_users += int(is_cold_start.sum())
            frame = table.frame(users.user_ids[batch], items, scores, is_cold_start)
            if first == 0:
                log.say(table.examples(frame))
            write(frame)
    return cold_start_users


@dataclass(frozen=True)
class _Table:
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
    def of(cls, dataset: Dataset, titles: pd.Series | None) -> _Table:
        """Use the column names of the ratings, or ``user`` and ``item`` if they have no header.

        An added column with one of these names is renamed.
        """
        columns = dataset.columns
        user, item = (columns.user, columns.item) if columns.header else ("user", "item")
        contents = ["rank", "score", "source", *(["title"] if titles is not None else [])]
        added = {content: _free_name(content, {user, item}) for content in contents}
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


def _free_name(name: str, taken: Collection[str]) -> str:
    """Prefix a name that is taken with ``vae_``."""
    while name in taken:
        name = f"vae_{name}"
    return name
