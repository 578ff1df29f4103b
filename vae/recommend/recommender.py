"""A trained model that recommends: what the command line calls, and what a notebook can.

::

    from vae import Recommender

    with Recommender.load("checkpoints", "data", "ml-20m") as recommender:
        recommender.recommend(histories, k=10, deny=[2364])
        recommender.similar_items(2364)

Shapes: B users of a batch, I items, K recommendations per user.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from numbers import Real
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.baselines.best_unseen import best_unseen
from vae.baselines.popularity import popularity_scores
from vae.config import MAX_EXPLAINED, Config, Execution
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.histories import UserHistories, prepared_histories, read_histories
from vae.load.ids import find_item
from vae.load.item_filters import ItemFilters
from vae.load.store import open_dataset
from vae.models.checkpoints.resume import flags_of_checkpoint
from vae.models.graph.inference_graph import InferenceGraph
from vae.models.graph.precision import FLOAT32, Precision, choose_precision
from vae.models.graph.session import report_session_errors
from vae.models.graph.sparse_input import feed
from vae.models.inference.blend import blend as blend_model
from vae.models.inference.trained_model import (
    FEW_USERS,
    InferenceSession,
    TrainedModel,
    load_model,
)
from vae.recommend.explain import explain as explain_items
from vae.recommend.inputs import PathLike, Rows, as_table, read_filters
from vae.recommend.scores import Pairs, Ranking, read_pairs, score_pairs
from vae.recommend.table import RecommendationTable, free_name
from vae.recommend.titles import read_titles
from vae.utils.console import trimmed
from vae.utils.distributed import Workers
from vae.utils.run_log import RunLog

Result = TypeVar("Result")

_GRAPH = {"k": None, "filters": True, "only_listed": False, "log_probabilities": False}
"""Options of the inference graph for most calls."""

_BATCH_SCORES = 1 << 24
"""Scores of all items for the users of a batch; they and their order take 16 bytes each."""


@dataclass(frozen=True, eq=False, repr=False)
class Recommender:
    """Recommendations, scores and similar items from a trained model, in raw ids.

    Attributes:
        dataset: prepared data set that the model was trained on.
        model: trained model.
        execution: how the machine computes.
        batch_size: users per batch.
        workers: workers of the run, one of which this is.
        titles: (I,) strings, NA for an item without a title; None without titles.
    """

    dataset: Dataset
    model: TrainedModel
    execution: Execution
    batch_size: int
    workers: Workers
    titles: pd.Series | None = None
    _kept: dict[Any, InferenceSession] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)
    _closed: Event = field(default_factory=Event, init=False)

    @classmethod
    def load(
        cls,
        checkpoint_dir: PathLike,
        data_dir: PathLike = "/data",
        dataset: str = "ml-20m",
        checkpoint: str = "best",
        item_names: PathLike | None = None,
        title_col: str = "title",
        blend: Literal["ease", "none"] | None = None,
        item_names_col: str | None = None,
    ) -> Recommender:
        """Load a trained model and the prepared data that it was trained on.

        Args:
            checkpoint_dir: folder of the checkpoints, ``--checkpoint_dir``.
            data_dir: folder of the prepared data sets, ``--data_dir``.
            dataset: name of the data set, ``--dataset``.
            checkpoint: ``"best"`` by validation NDCG@100, or ``"latest"``.
            item_names: file of titles, ``--item_names``; None for none.
            title_col: its column of titles.
            blend: ``"ease"`` to mix the scores with those of EASE, ``"none"`` not to; None for
                the blend of the checkpoint, if it has one: ``--blend``.
            item_names_col: column of ids in the file of titles; None for that of the ratings.

        Raises:
            UserError: the data, the checkpoint or the titles cannot be used.
        """
        _check("checkpoint", checkpoint, checkpoint in ("best", "latest"), "'best' or 'latest'")
        _check("blend", blend, blend in ("ease", "none", None), "'ease', 'none' or None")
        paths = {"checkpoint_dir": checkpoint_dir, "data_dir": data_dir, "dataset": dataset}
        for name, value in paths.items():
            _check(name, value, isinstance(value, str | os.PathLike), "a path or a name")
        folders = {"checkpoint_dir": Path(checkpoint_dir), "data_dir": Path(data_dir)}
        # A test needs nothing but the model and its data.
        config = Config.of(
            test=True, **folders, dataset=dataset, checkpoint=checkpoint, blend=blend
        )
        folder, options = config.files.checkpoint_dir, config.checkpoints
        config = config.having(**flags_of_checkpoint(folder, options, config.uses_blend))
        data = open_dataset(config.files.data_dir, dataset)
        id_column = None if item_names_col is None else str(item_names_col)
        titles = None
        if item_names is not None:
            titles = read_titles(Path(item_names), str(title_col), data, id_column)
        worker = Workers()
        silent = RunLog(None)
        architecture = replace(config.model, items=len(data.item_ids))
        model = load_model(
            folders["checkpoint_dir"], checkpoint, architecture, data, worker, silent
        )
        model, _ = blend_model(model, data, config.evaluation, config.execution, worker, silent)
        batch_size = config.evaluation.batch_size_validation
        return cls(data, model, config.execution, batch_size, worker, titles)

    @property
    def items(self) -> int:
        """I, the number of items."""
        return len(self.dataset.item_ids)

    @cached_property
    def popularity(self) -> NDArray[np.float32]:
        """(I,) scores of the items that cold-start users get."""
        return popularity_scores(self.dataset.train)

    def table(self, explains: bool = False) -> RecommendationTable:
        """Return the columns of the recommendations, with or without explanations."""
        return self._tables[explains]

    @cached_property
    def _tables(self) -> tuple[RecommendationTable, RecommendationTable]:
        without, with_explanations = (
            RecommendationTable(self.dataset, self.titles, explains) for explains in (False, True)
        )
        return without, with_explanations

    def precision(self, explains: bool) -> Precision:
        """Return the precision of inference; explanations, being exact, need float32."""
        if explains:
            return replace(FLOAT32, description="float32, as --explain needs")
        return choose_precision(self.execution.amp)

    def recommend(
        self,
        histories: Rows,
        k: int = 100,
        allow: Rows | None = None,
        deny: Rows | None = None,
        explain: int = 0,
    ) -> pd.DataFrame:
        """Recommend items to users, who may be new to the model.

        The first call loads the model into a session, which the next ones use. Threads may call at
        the same time.

        Args:
            histories: table or file with the columns of the ratings (``user``, ``item`` and
                ``rating`` if those have no header), which are optional. Users alone stand for their
                prepared histories. Or a list of items, the history of one user, whose id is 0.
            k: items per user.
            allow: the only items to recommend, to all users or by user; None for all.
            deny: items not to recommend, to all users or by user; None for none.
            explain: number of history items to name for each, those with the largest leave-one-out
                effect; each item of a history takes as long as recommending to one more user.

        Returns:
            One row per recommendation, user by user and best first: raw user id, raw item id,
            rank from 1, score, source, title if they were loaded, explanation if asked for.

        Raises:
            UserError: a table cannot be used, or a number is out of range.
        """
        k, explain = _integer("k", k, 1), _integer("explain", explain, 0, MAX_EXPLAINED)
        if explain and self.model.is_blended:
            raise UserError("explain explains the model alone; load it with blend='none'.")
        table = self.table()
        users = as_table(histories, "histories", table, {table.user: 0})
        tables = {
            name: as_table(rows, name, table)
            for name, rows in {"allow": allow, "deny": deny}.items()
            if rows is not None
        }
        filters = read_filters(tables, self.dataset)
        batches = [*self.batches(read_histories(users, self.dataset), k, filters, explain)]
        return batches[0] if len(batches) == 1 else pd.concat(batches, ignore_index=True)

    def batches(
        self,
        users: UserHistories,
        k: int,
        filters: ItemFilters,
        explain: int = 0,
        advance: Callable[[int], object] = lambda users: None,
    ) -> Iterator[pd.DataFrame]:
        """Recommend to users batch by batch; yield the rows of a ``RecommendationTable``.

        ``advance`` takes the number of users of each part of a batch that is done.
        """
        table, ranking = self.table(explain > 0), _Ranking(self, filters, min(k, self.items))
        with self._inference(users.users, explain > 0) as inference, report_session_errors():
            session, batch_size = inference.session, inference.max_users
            only_listed = filters.allow is not None and filters.allow.user_ids is not None
            options = {"only_listed": only_listed, "log_probabilities": explain > 0}
            graph = inference.graph(**_GRAPH | options)

            def log_probabilities(histories: csr_matrix, items: NDArray[np.int32]) -> Any:
                fed = feed(graph.histories, histories) | {graph.given_items: items}
                return session.run(graph.log_probabilities, fed)

            for first in range(0, users.users, batch_size):
                part = users[first : first + batch_size]
                items, scores, is_cold_start = ranking.rank(session, graph, part)
                explanations = None
                if explain:
                    limits = (explain, batch_size)
                    explanations = explain_items(
                        log_probabilities, part.liked, items, *limits, advance=advance
                    )
                else:
                    advance(part.users)
                yield table.frame(part.user_ids, items, scores, is_cold_start, explanations)

    def score(self, pairs: Rows, histories: Rows | None = None) -> pd.DataFrame:
        """Score given items for given users, each row by itself.

        Args:
            pairs: table or file with the user and item columns of the ratings; or a list of items,
                for the user whose history is a list.
            histories: as for ``recommend``; None for the prepared ones.

        Returns:
            The rows in their order: raw user id, raw item id, rank from 1 among the items that the
            user has not seen, score, source, and title if they were loaded. An item of the history
            has no rank; an unknown user or item has neither rank, score nor source.

        Raises:
            UserError: a table cannot be used.
        """
        table, users = self.table(), prepared_histories(self.dataset)
        if histories is not None:
            given = as_table(histories, "histories", table, {table.user: 0})
            users = read_histories(given, self.dataset)
        rows = as_table(pairs, "pairs", table, {table.user: 0})
        return self.score_pairs(read_pairs(rows, "pairs", self.dataset, users), users)

    def score_pairs(
        self,
        pairs: Pairs,
        users: UserHistories,
        advance: Callable[[int], object] = lambda users: None,
    ) -> pd.DataFrame:
        """Return the rows of ``score``; ``advance`` takes the number of users of each batch."""
        ranking = _Ranking(self, ItemFilters(), self.items)
        compute = partial(self._compute, ranking.rank, advance, _BATCH_SCORES // self.items)
        return self.table().scored(pairs, score_pairs(pairs, users, compute))

    def user_vectors(
        self, users: UserHistories, advance: Callable[[int], object] = lambda users: None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the (B, Z) float32 latent means of the users of each batch."""

        def encode(session: tf.Session, graph: InferenceGraph, users: UserHistories) -> Any:
            return session.run(graph.latent_mean, feed(graph.histories, users.liked))

        return self._compute(encode, advance, self.batch_size, users)

    def _compute(
        self,
        compute: Callable[[tf.Session, InferenceGraph, UserHistories], Result],
        advance: Callable[[int], object],
        batch_size: int,
        users: UserHistories,
    ) -> Iterator[Result]:
        """Yield what a function computes for the users of each batch, which may be smaller."""
        with self._inference(users.users, False) as inference, report_session_errors():
            graph = inference.graph(**_GRAPH)
            size = max(1, min(batch_size, inference.max_users))
            for first in range(0, users.users, size):
                part = users[first : first + size]
                yield compute(inference.session, graph, part)
                advance(part.users)

    def close(self) -> None:
        """Free the memory of the sessions; ``recommend`` cannot be called any more."""
        with self._lock:
            self._closed.set()
            while self._kept:
                self._kept.popitem()[1].close()

    def __enter__(self) -> Recommender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _inference(self, users: int, explains: bool) -> Iterator[InferenceSession]:
        """Yield a session for so many users: for few the one that is kept, else one of its own."""
        precision, is_for_few = self.precision(explains), users <= FEW_USERS
        max_users = min(self.batch_size, FEW_USERS) if is_for_few else self.batch_size
        key = (precision.dtype, precision.rewritten)
        with self._lock:
            if self._closed.is_set():
                raise UserError("the Recommender is closed; load it again.")
            inference = self._kept.get(key) if is_for_few else None
            if inference is None:
                inference = InferenceSession(
                    self.model, self.execution, self.workers, max_users, precision
                )
                if is_for_few:
                    self._kept[key] = inference
        if explains:
            # The difference of two logarithms would be lost in the rounding of TF32.
            tf.config.experimental.enable_tensor_float_32_execution(False)  # of the whole process
        try:
            yield inference
        finally:
            if not is_for_few:
                inference.close()

    def similar_items(self, item: Any, k: int = 10) -> pd.DataFrame:
        """Return the nearest neighbours of an item by the decoder's item vectors.

        Args:
            item: raw id.
            k: number of neighbours.

        Returns:
            One row per neighbour, nearest first: raw item id, cosine and, if they were loaded,
            title.

        Raises:
            UserError: the data set has no such item, or k is below 1.
        """
        k = _integer("k", k, 1)
        index = find_item(str(int(item) if _is_whole(item) else item), self.dataset, "item")
        vectors = self.item_vectors()
        lengths = np.maximum(np.linalg.norm(vectors, axis=0), np.finfo(np.float32).tiny)
        cosines = vectors[:, index] @ vectors / (lengths * lengths[index])
        cosines[index] = -np.inf  # the last one, which is left out
        neighbours = np.argsort(-cosines, kind="stable")[: min(k, self.items - 1)]
        column = self.table().item
        rows = {column: self.dataset.item_ids[neighbours]}
        rows[free_name("cosine", rows)] = cosines[neighbours]
        if self.titles is not None:
            rows[free_name("title", {column})] = self.titles.array.take(neighbours)
        return pd.DataFrame(rows)

    def similar_items_text(self, raw_id: str) -> str:
        """List the nearest neighbours of an item, human-readable, in 100 columns."""
        index = find_item(raw_id, self.dataset)
        title = pd.NA if self.titles is None else self.titles.iloc[index]
        label = f"{self.dataset.item_ids[index]} {'' if pd.isna(title) else title}".rstrip()
        lines = [f"Nearest to item {label}, by cosine:"]
        for item, cosine, *titles in self.similar_items(raw_id).fillna("").itertuples(index=False):
            lines.append(f"{cosine:7.3f}  {item}  {''.join(titles)}".rstrip())
        return "\n".join(map(trimmed, lines))

    def item_vectors(self) -> NDArray[np.float32]:
        """Return the decoder's item vectors, (D, I) float32: D is H or, of a linear decoder, Z."""
        assert self.model.weights is not None
        kernel = self.model.weights["decoder/items/kernel"]
        return kernel[:, : self.items]  # without the padded items

    def item_biases(self) -> NDArray[np.float32]:
        """Return the (I,) float32 biases of the items' logits."""
        assert self.model.weights is not None
        return self.model.weights["decoder/items/bias"][: self.items]


class _Ranking:
    """What may be recommended, and the best K of it.

    Args:
        recommender: the model and its data.
        filters: what may be recommended.
        k: K, at most I.
    """

    def __init__(self, recommender: Recommender, filters: ItemFilters, k: int) -> None:
        self._filters, self._k = filters, k
        self._mask = np.zeros(recommender.model.architecture.padded_items, np.float32)
        if (excluded := filters.excluded()) is not None:
            self._mask[: len(excluded)][excluded] = -np.inf
        self._popularity = recommender.popularity + self._mask[: recommender.items]

    def rank(self, session: tf.Session, graph: InferenceGraph, users: UserHistories) -> Ranking:
        """Return items and scores as in ``InferenceGraph``; cold starts get them by popularity."""
        denied = self._filters.denied(users.user_ids)
        allowed = self._filters.allowed(users.user_ids)
        seen = users.seen if denied is None else users.seen.maximum(denied)
        listed = seen if allowed is None else allowed - allowed.multiply(seen)
        fed = feed(graph.histories, users.liked) | feed(graph.listed, listed)
        fed |= {graph.k: self._k, graph.item_mask: self._mask}
        items, scores = session.run([graph.items, graph.scores], fed)
        is_cold_start = np.diff(users.liked.indptr) == 0
        if is_cold_start.any():
            allowed = None if allowed is None else allowed[is_cold_start]
            popularity = self._popularity
            found = best_unseen(lambda _: popularity, seen[is_cold_start], self._k, allowed)
            items[is_cold_start], scores[is_cold_start] = found, popularity[found]
        return items, scores, is_cold_start


def _check(name: str, value: Any, is_right: bool, fix: str) -> None:
    if not is_right:
        raise UserError(f"{name} is {value!r}; pass {fix}.")


def _integer(name: str, value: Any, ge: int, le: float = math.inf) -> int:
    """Return a whole number of any type, from ``ge`` to ``le``, as an integer."""
    is_right = _is_whole(value) and ge <= value <= le
    at_most = f" and at most {le:g}" if le < math.inf else ""
    _check(name, value, is_right, f"an integer of at least {ge}{at_most}")
    return int(value)


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and value % 1 == 0
