"""``--recommend``: the best unseen items of each user, in raw ids, streamed into a file."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae.baselines.popularity import popularity_scores, recommend_popular
from vae.config import Config
from vae.load.dataset import Dataset
from vae.load.fold_in import UserHistories
from vae.models.precision import choose_precision
from vae.models.sparse_input import feed
from vae.models.trained_model import TrainedModel, open_inference_session
from vae.recommend.writer import table_writer
from vae.utils.distributed import Workers
from vae.utils.run_log import RunLog

_EXAMPLE_USERS, _EXAMPLE_ITEMS = 3, 5

MODEL, POPULAR = "model", "popular"
"""Where a recommendation comes from; a user without a known item gets the most popular ones."""


def recommend(
    config: Config,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
    model: TrainedModel,
    users: UserHistories,
    titles: pa.Array | None = None,
) -> dict[str, float]:
    """Writes the recommendations that the flags ask for to ``--output``.

    Args:
        config: the flags: how many items to recommend, where to.
        dataset: what the model was trained on; it gives the columns their raw ids.
        workers: only rank 0 should call this.
        log: told what was written.
        model: what ranks the items.
        users: whom to recommend to.
        titles: (items,) strings to write beside the ids, if there are any.

    Returns:
        The number of users, of users who got popular items, and users a second.

    Raises:
        UserError: the file cannot be written.
    """
    assert config.output is not None
    start = time.perf_counter()
    cold_users = _write(config, dataset, workers, log, model, users, titles)
    seconds = time.perf_counter() - start
    log.say(f"Recommendations for {users.users:,} users: {config.output}")
    return {
        "recommend_users": users.users,
        "recommend_popular_users": cold_users,
        "recommend_throughput": users.users / seconds,
    }


def _write(
    config: Config,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
    model: TrainedModel,
    users: UserHistories,
    titles: pa.Array | None,
) -> int:
    """Ranks batch by batch; returns how many users got popular items."""
    assert config.output is not None
    rows = _Rows.of(dataset, titles)
    if rows.renamed:
        log.say(
            "Columns that the ratings have already are written under other names: "
            f"{', '.join(f'{name} as {other}' for name, other in rows.renamed.items())}."
        )
    precision = choose_precision(config.amp)
    log.say(f"Precision of inference: {precision.description}.")
    popular_scores = popularity_scores(dataset.train)
    k, batch = min(config.top_results, model.architecture.items), config.batch_size_validation
    cold_users = 0
    with (
        open_inference_session(config, workers, model, k, batch, precision, separate_seen=True) as (
            session,
            ranking,
        ),
        table_writer(config.output, rows.schema(users.user_ids)) as write,
    ):
        for first in range(0, users.users, batch):
            part = slice(first, first + batch)
            liked, seen = users.liked[part], users.seen[part]
            items, scores = session.run(
                [ranking.items, ranking.scores],
                feed(ranking.histories, liked) | feed(ranking.seen, seen),
            )
            cold = np.diff(liked.indptr) == 0
            if cold.any():
                items[cold] = recommend_popular(dataset.train, seen[cold], k)
                scores[cold] = popular_scores[items[cold]]
                cold_users += int(cold.sum())
            table = rows.table(users.user_ids[part], items, scores, cold)
            if first == 0:
                log.say(rows.examples(table))
            write(table)
    return cold_users


@dataclass(frozen=True)
class _Rows:
    """Makes the rows of the file: user, item, rank, score, source and, if known, title.

    Attributes:
        user: name of the column of users.
        item: name of the column of items.
        added: names of the other columns by what they hold.
        item_ids: (items,) raw ids.
        titles: (items,) strings, None without a file of titles.
    """

    user: str
    item: str
    added: Mapping[str, str]
    item_ids: pa.Array
    titles: pa.Array | None

    @classmethod
    def of(cls, dataset: Dataset, titles: pa.Array | None) -> _Rows:
        """Rows with the data set's names of columns; no added column takes one of them."""
        user, item = dataset.columns.user, dataset.columns.item
        contents = ["rank", "score", "source", *(["title"] if titles is not None else [])]
        added = {content: _free_name(content, {user, item}) for content in contents}
        return cls(user, item, added, pa.array(dataset.item_ids), titles)

    @property
    def renamed(self) -> dict[str, str]:
        """The added columns that have another name than usual."""
        return {content: name for content, name in self.added.items() if name != content}

    def schema(self, user_ids: NDArray[np.generic]) -> pa.Schema:
        """Names and types of the columns."""
        return self.table(
            user_ids[:0],
            np.empty((0, 0), np.int32),
            np.empty((0, 0), np.float32),
            np.empty(0, bool),
        ).schema

    def table(
        self,
        user_ids: NDArray[np.generic],
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
        cold: NDArray[np.bool_],
    ) -> pa.Table:
        """One row for each recommendation, user by user, best first.

        Args:
            user_ids: (B,) raw ids.
            items: (B, K) columns, -1 where there is none.
            scores: (B, K).
            cold: (B,) whether the user got popular items.
        """
        user, rank = np.nonzero(items >= 0)
        columns = pa.array(items[user, rank])
        added = {
            "rank": pa.array(rank.astype(np.int32) + 1),
            "score": pa.array(scores[user, rank]),
            "source": pa.DictionaryArray.from_arrays(
                pa.array(cold[user].astype(np.int8)), [MODEL, POPULAR]
            ).cast(pa.string()),
        }
        if self.titles is not None:
            added["title"] = self.titles.take(columns)
        ids = {
            self.user: pa.array(user_ids).take(pa.array(user)),
            self.item: self.item_ids.take(columns),
        }
        return pa.table(ids | {self.added[content]: column for content, column in added.items()})

    def examples(self, table: pa.Table) -> str:
        """The first recommendations of a table's first users, for people."""
        ranks = table[self.added["rank"]]
        best = table.filter(pc.less_equal(ranks, _EXAMPLE_ITEMS)).to_pylist()
        lists = groupby(best, key=itemgetter(self.user))
        lines = [
            f"  {self.user} {user}: " + "; ".join(map(self._name, rows))
            for user, rows in islice(lists, _EXAMPLE_USERS)
        ]
        return "\n".join(["For example:", *lines])

    def _name(self, row: Mapping[str, Any]) -> str:
        title = row[self.added["title"]] if self.titles is not None else None
        return f"{row[self.item]} {title or ''}".rstrip()


def _free_name(name: str, taken: Collection[str]) -> str:
    """The name, with a prefix where it is taken."""
    while name in taken:
        name = f"vae_{name}"
    return name
