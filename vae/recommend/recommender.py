"""A trained model that recommends: what the command line calls, and what a notebook can.

::

    from vae import Recommender

    recommender = Recommender.load("checkpoints", "data", "ml-20m")
    recommender.recommend(histories, k=10, deny=[2364])
    recommender.similar_items(2364)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.baselines.popularity import popularity_scores
from vae.config import MAX_EXPLAINED, Config
from vae.errors import UserError, one_line
from vae.load.dataset import Dataset
from vae.load.histories import UserHistories, read_histories
from vae.load.item_filters import ItemList, Rules, read_item_list
from vae.load.store import open_dataset
from vae.models.checkpoints.manager import flags_of_checkpoint
from vae.models.graph.inference_graph import InferenceGraph
from vae.models.graph.precision import FLOAT32, Precision, choose_precision
from vae.models.graph.sparse_input import feed
from vae.models.inference.blend import blend as blend_model
from vae.models.inference.trained_model import TrainedModel, load_model, open_inference_session
from vae.recommend.cold_start import popular_items
from vae.recommend.explain import explain as explain_items
from vae.recommend.similar_items import find_item, nearest_items
from vae.recommend.table import RecommendationTable, free_name
from vae.recommend.titles import read_titles
from vae.utils.distributed import SingleWorker, Workers
from vae.utils.run_log import RunLog

PathLike: TypeAlias = str | os.PathLike[str]
Rows: TypeAlias = pd.DataFrame | pa.Table | PathLike | Iterable[Any]
"""A table or file with the columns of the ratings; or raw ids of items."""


class Batch(NamedTuple):
    """Recommendations to a batch of users.

    Attributes:
        rows: one row per recommendation, see ``RecommendationTable``.
        cold_start_users: number of users without a known item.
        empty_users: number of users to whom nothing is left to recommend.
    """

    rows: pd.DataFrame
    cold_start_users: int
    empty_users: int


class Recommender:
    """Recommendations and similar items from a trained model, in raw ids.

    Args:
        config: flags that decide how the model is run: batch size, precision, seed.
        dataset: prepared data set that the model was trained on, with I items.
        model: trained model.
        titles: (I,) strings, NA for an item without a title; None without titles.
        workers: workers of the run, one of which this is.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        model: TrainedModel,
        titles: pd.Series | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.dataset = dataset
        self.model = model
        self._config = config
        self.titles = titles
        self._workers = workers or SingleWorker("1 worker")

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
        if checkpoint not in ("best", "latest"):
            raise UserError(f"checkpoint is {checkpoint!r}; pass 'best' or 'latest'.")
        if blend not in (None, "ease", "none"):
            raise UserError(f"blend is {blend!r}; pass 'ease', 'none' or None.")
        folders = {"checkpoint_dir": checkpoint_dir, "data_dir": data_dir, "dataset": dataset}
        for name, value in folders.items():
            if not isinstance(value, str | os.PathLike):
                raise UserError(f"{name} is {value!r}; pass a path or a name.")
        config = Config.of(
            test=True,  # a mode that needs nothing but the model and its data
            data_dir=Path(data_dir),
            dataset=dataset,
            checkpoint_dir=Path(checkpoint_dir),
            checkpoint=checkpoint,
            blend=blend,
        )
        config = config.having(**flags_of_checkpoint(config))
        data = open_dataset(config.files.data_dir, dataset)
        titles = (
            None
            if item_names is None
            else read_titles(
                Path(item_names),
                str(title_col),
                data,
                None if item_names_col is None else str(item_names_col),
            )
        )
        worker = SingleWorker("1 worker")
        silent = RunLog(Path(os.devnull), enabled=False)
        architecture = replace(config.model, items=len(data.item_ids))
        model = load_model(config, data, architecture, worker, silent)
        model = blend_model(config, data, worker, silent, model)
        return cls(config, data, model, titles, worker)

    def table(self, explains: bool = False) -> RecommendationTable:
        """Return the columns of the recommendations, with or without explanations."""
        return RecommendationTable.of(self.dataset, self.titles, explains)

    def precision(self, explains: bool) -> Precision:
        """Return the precision of inference; explanations, being exact, need float32."""
        if explains:
            return replace(FLOAT32, description="float32, as --explain needs")
        return choose_precision(self._config.execution.amp)

    @cached_property
    def _popularity(self) -> NDArray[np.float32]:
        """(I,) score of each item for cold-start users."""
        return popularity_scores(self.dataset.train)

    @property
    def items(self) -> int:
        """I, the number of items."""
        return len(self.dataset.item_ids)

    def recommend(
        self,
        histories: Rows,
        k: int = 100,
        allow: Rows | None = None,
        deny: Rows | None = None,
        explain: int = 0,
    ) -> pd.DataFrame:
        """Recommend items to users, who may be new to the model.

        Each call loads the model into a session: pass many users at once.

        Args:
            histories: table or file with the columns of the ratings (``user``, ``item`` and
                ``rating`` if those have no header); ratings are optional. Users alone stand for
                their prepared histories. Or a list of items, the history of one user, whose id is
                0.
            k: items per user.
            allow: the only items to recommend, to everybody or by user; None for all.
            deny: items not to recommend, to everybody or by user; None for none.
            explain: number of items of the history to name that speak most for each; each item of
                a history takes as long as recommending to one more user.

        Returns:
            One row per recommendation, user by user and best first: raw user id, raw item id,
            rank from 1, score, source, title if they were loaded, explanation if asked for.

        Raises:
            UserError: a table cannot be used, or a number is out of range.
        """
        k, explain = _integer("k", k, 1), _integer("explain", explain, 0, MAX_EXPLAINED)
        if explain and self.model.is_blended:
            raise UserError("explain explains the model alone; load it with blend='none'.")
        one_user = {self.table().user: 0}
        users = read_histories(self._rows(histories, "histories", one_user), self.dataset)
        rules = Rules(self._item_list(allow, "allow"), self._item_list(deny, "deny"))
        batches = self.batches(users, min(k, self.items), rules, explain)
        rows = [batch.rows for batch in batches]
        return pd.concat(rows, ignore_index=True)

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
        neighbours, cosines = nearest_items(vectors, index, min(k, self.items - 1))
        column = self.table().item
        ids = {column}
        rows = {
            column: self.dataset.item_ids[neighbours],
            free_name("cosine", ids): cosines,
        }
        if self.titles is not None:
            rows[free_name("title", ids)] = self.titles.array.take(neighbours)
        return pd.DataFrame(rows)

    def label(self, index: int) -> str:
        """Return the raw id and the title, if any, of an item index."""
        title = pd.NA if self.titles is None else self.titles.iloc[index]
        return f"{self.dataset.item_ids[index]} {'' if pd.isna(title) else title}".rstrip()

    def item_vectors(self) -> NDArray[np.float32]:
        """Return the decoder's item vectors, (D, I) float32: D is H or, of a linear decoder, Z."""
        assert self.model.weights is not None
        kernel = self.model.weights["decoder/items/kernel"]
        return kernel[:, : self.items]  # without the padded items

    def batches(
        self,
        users: UserHistories,
        k: int,
        rules: Rules,
        explain: int = 0,
        advance: Callable[[int], object] = lambda users: None,
    ) -> Iterator[Batch]:
        """Recommend to users batch by batch.

        Args:
            users: their histories.
            k: items per user, at most I.
            rules: what may be recommended.
            explain: number of items to name that speak for each.
            advance: takes the number of users of each part of a batch that is done.
        """
        table = self.table(explain > 0)
        batch_size = self._config.evaluation.batch_size_validation
        # The difference of two logarithms would be lost in the rounding of TF32 too.
        config = self._config.having(no_tf32=True) if explain else self._config
        with open_inference_session(
            config,
            self._workers,
            self.model,
            k,
            batch_size,
            self.precision(explain > 0),
            excluded=rules.excluded(),
            separate_listed=True,
            only_listed=rules.allow is not None and rules.allow.user_ids is not None,
            log_probabilities=explain > 0,
        ) as (session, graph):

            def score(histories: csr_matrix, items: NDArray[np.int32]) -> NDArray[np.float32]:
                fed = feed(graph.histories, histories) | {graph.given_items: items}
                log_probabilities: NDArray[np.float32] = session.run(graph.log_probabilities, fed)
                return log_probabilities

            for first in range(0, users.users, batch_size):
                part = users[first : first + batch_size]
                items, scores, is_cold_start = self._rank(session, graph, part, k, rules)
                reasons = (
                    explain_items(score, part.liked, items, explain, batch_size, advance)
                    if explain
                    else None
                )
                if not explain:
                    advance(part.users)
                rows = table.frame(part.user_ids, items, scores, is_cold_start, reasons)
                yield Batch(rows, int(is_cold_start.sum()), int((items[:, 0] < 0).sum()))

    def _rank(
        self,
        session: tf.Session,
        graph: InferenceGraph,
        users: UserHistories,
        k: int,
        rules: Rules,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
        """Return (B, K) items and scores as in ``InferenceGraph``, and (B,) who is a cold start."""
        denied, allowed = rules.denied(users.user_ids), rules.allowed(users.user_ids)
        seen = users.seen if denied is None else users.seen.maximum(denied)
        listed = seen if allowed is None else allowed - allowed.multiply(seen)
        fed = feed(graph.histories, users.liked) | feed(graph.listed, listed)
        items, scores = session.run([graph.items, graph.scores], fed)
        is_cold_start = np.diff(users.liked.indptr) == 0
        if is_cold_start.any():
            items[is_cold_start] = popular_items(
                self.dataset.train,
                seen[is_cold_start],
                k,
                rules.excluded(),
                None if allowed is None else allowed[is_cold_start],
            )
            scores[is_cold_start] = self._popularity[items[is_cold_start]]
        return items, scores, is_cold_start

    def _item_list(self, items: Rows | None, name: str) -> ItemList | None:
        if items is None:
            return None
        rows = self._rows(items, name, {})
        return read_item_list(rows, name, self.dataset, needs_items=name == "allow")

    def _rows(self, rows: Rows, name: str, constants: Mapping[str, Any]) -> pd.DataFrame | Path:
        """Return an argument as what the readers take.

        Args:
            rows: the argument.
            name: its name.
            constants: columns to put beside a list of items, with their value.
        """
        if isinstance(rows, pd.DataFrame):
            return rows
        if isinstance(rows, str | os.PathLike):
            return Path(rows)
        if isinstance(rows, pa.Table | pa.RecordBatch):
            return rows.to_pandas(types_mapper=pd.ArrowDtype)  # integers stay integers
        table = self.table()
        if not isinstance(rows, bytes | Mapping):
            with suppress(TypeError):  # it has no elements
                return pd.DataFrame({**constants, table.item: list(rows)})
        raise UserError(
            f"{name} is {one_line(repr(rows))}; pass a list of item ids, or a table or file with "
            f"the columns {table.user!r} and {table.item!r}."
        )


def _integer(name: str, value: Any, least: int, most: float = math.inf) -> int:
    """Return a whole number of any type as an integer.

    Raises:
        UserError: it is not a whole number, less than ``least`` or more than ``most``.
    """
    if not _is_whole(value) or not least <= value <= most:
        at_most = f" and at most {most:g}" if most < math.inf else ""
        raise UserError(f"{name} is {value!r}; pass an integer of at least {least}{at_most}.")
    return int(value)


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and value % 1 == 0
