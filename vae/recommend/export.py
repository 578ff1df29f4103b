"""``--export``: a SavedModel that takes and returns raw ids, e.g. for TensorFlow Serving.

The folder holds TensorFlow's ``saved_model.pb`` and ``variables/``, and beside them
``item_ids.csv`` (item index, raw id, title) and ``model_card.md``. The signatures, for B users
whose histories are padded to L items:

``serving_default``
    ``histories`` (B, L) raw ids, any unknown id is padding -> ``items`` (B, K) raw ids, best first.
``columns``
    ``histories`` (B, L) int64 item indices, padded with -1 -> ``items`` (B, K) int32 item indices.

``filtered``, ``filtered_columns``
    The same with two more inputs, ``allow`` and ``deny``: ids or indices, padded like histories,
    one row for each user or a single one for all. Only allowed items are ranked, and denied ones
    never. A row of ``allow`` that holds nothing but padding values allows everything.

All also return ``scores`` (B, K) float32 and ``known_items`` (B,) int32, the number of items of
each history that the model knows. Where that is 0, the items are the most popular ones.

The filters have signatures of their own because a server demands every input of a signature:
requests without them stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.baselines.popularity import popularity_scores
from vae.config import Config
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.models.graph.inference_graph import Blend, ItemScores, best_items, without_masked
from vae.models.graph.sparse_input import PortableSparseBatch
from vae.models.graph.vae import VAE
from vae.models.inference.trained_model import TrainedModel
from vae.recommend.model_card import model_card
from vae.utils.atomic import check_creatable, temporary_folder, written

RAW_IDS, ITEM_INDICES = "serving_default", "columns"
FILTERED_RAW_IDS, FILTERED_ITEM_INDICES = "filtered", "filtered_columns"
"""Names of the signatures."""

_FILTERS = ("allow", "deny")

_PADDING = -1
"""Padding value of item indices."""


def check_export(folder: Path) -> None:
    """Check, before a long run, that a finished export can replace its folder.

    Raises:
        UserError: the folder is not empty, or cannot be created or replaced.
    """
    if folder.name in ("", ".."):
        raise UserError(f"--export {folder}: cannot be replaced; name a new folder.")
    check_creatable(folder, "--export")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--export {folder}: is not an empty folder; name an empty or a new one.")
    if folder.is_symlink() or folder.is_mount():
        raise UserError(
            f"--export {folder}: is a link or a mount point and cannot be replaced; name a folder "
            "inside it."
        )


def export(
    config: Config,
    dataset: Dataset,
    model: TrainedModel,
    metrics: Mapping[str, float],
    titles: pd.Series | None,
) -> Path:
    """Write the folder of ``--export``, complete or not at all.

    Args:
        config: flags: folder, dtype, number of items per user.
        dataset: prepared data set that the model was trained on, with I items.
        model: trained model.
        metrics: metrics and statistics for the model card, by their log keys.
        titles: (I,) strings, NA for an item without a title; None to write no titles.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written.
    """
    assert config.modes.export is not None
    folder = config.modes.export
    with written("--export", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as temporary:
            try:
                save_model(temporary, config, dataset, model)
            except tf.errors.OpError as error:
                raise OSError(0, error.message.splitlines()[0]) from None
            _write_item_ids(temporary / "item_ids.csv", dataset.item_ids, titles)
            padding_value = padding_value_of(dataset.item_ids)
            card = model_card(config, dataset, model, metrics, padding_value)
            (temporary / "model_card.md").write_text(card, encoding="utf-8")
            temporary.replace(folder)
    return folder


def save_model(
    folder: Path,
    config: Config,
    dataset: Dataset,
    model: TrainedModel,
) -> None:
    """Write the SavedModel alone.

    Args:
        folder: folder to fill.
        config: flags: dtype, number of items per user, seed.
        dataset: prepared data set that the model was trained on.
        model: trained model.

    Raises:
        OSError: the folder cannot be written.
        tf.errors.OpError: TensorFlow cannot write to the folder.
    """
    k = min(config.evaluation.top_results, model.architecture.items)
    popular = popularity_scores(dataset.train)
    # A session of its own on the CPU: nothing is computed, and no GPU is named in the graph.
    with (
        tf.Graph().as_default(),
        tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})) as session,
    ):
        dtype = tf.as_dtype(config.evaluation.export_dtype)
        vae, blend = VAE(model.architecture, config.execution.seed, dtype), model.new_blend()
        raw_ids = _RawIds(dataset.item_ids)
        signatures = {
            RAW_IDS: _raw_ids_signature(vae, blend, raw_ids, popular, k, filtered=False),
            ITEM_INDICES: _item_indices_signature(vae, blend, popular, k, filtered=False),
            FILTERED_RAW_IDS: _raw_ids_signature(vae, blend, raw_ids, popular, k, filtered=True),
            FILTERED_ITEM_INDICES: _item_indices_signature(vae, blend, popular, k, filtered=True),
        }
        model.load_into(session)
        fill_tables = tf.tables_initializer()
        # A converter takes one signature out of the graph, and may leave the tables behind.
        tf.get_default_graph().clear_collection(tf.GraphKeys.TABLE_INITIALIZERS)
        builder = tf.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.tag_constants.SERVING],
            signatures,
            main_op=fill_tables,
            strip_default_attrs=True,
        )
        builder.save()


def padding_value_of(item_ids: NDArray[np.generic]) -> str | int:
    """Padding value of raw ids: an id that no item has.

    Args:
        item_ids: (I,) raw ids, int64 or strings.
    """
    if item_ids.dtype.kind == "U":
        return ""
    return -1 if -1 not in item_ids else int(np.iinfo(np.int64).min)


class _RawIds:
    """The table of raw ids in the graph.

    Args:
        item_ids: (I,) raw ids, int64 or strings.
    """

    def __init__(self, item_ids: NDArray[np.generic]) -> None:
        self._ids = tf.constant(item_ids)
        self.dtype: tf.DType = self._ids.dtype
        self.padding_value = tf.constant([padding_value_of(item_ids)], self.dtype)
        indices = tf.range(len(item_ids), dtype=tf.int64)
        initializer = tf.lookup.KeyValueTensorInitializer(self._ids, indices)
        self._table = tf.lookup.StaticHashTable(initializer, default_value=_PADDING)

    def indices(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the int64 item index of each id, -1 for an unknown one."""
        return self._table.lookup(ids)

    def ids(self, items: tf.Tensor) -> tf.Tensor:
        """Return the id of each item index, the padding value for -1."""
        return tf.gather(tf.concat([self.padding_value, self._ids], axis=0), items + 1)


def _item_indices_signature(
    vae: VAE, blend: Blend | None, popular: NDArray[np.float32], k: int, filtered: bool
) -> Any:
    inputs = _inputs(tf.int64, "filtered_item_indices" if filtered else "item_indices", filtered)
    filters = None
    if filtered:
        allow, deny = _filter_rows(inputs)
        filters = _Filters(allow, tf.reduce_all(tf.equal(allow, _PADDING), axis=1), deny)
    return _signature(inputs, *_recommend(vae, blend, inputs["histories"], popular, k, filters))


def _raw_ids_signature(
    vae: VAE,
    blend: Blend | None,
    raw_ids: _RawIds,
    popular: NDArray[np.float32],
    k: int,
    filtered: bool,
) -> Any:
    inputs = _inputs(raw_ids.dtype, "filtered_ids" if filtered else "ids", filtered)
    filters = None
    if filtered:
        allow, deny = _filter_rows(inputs)
        allows_all = tf.reduce_all(tf.equal(allow, raw_ids.padding_value), axis=1)
        filters = _Filters(raw_ids.indices(allow), allows_all, raw_ids.indices(deny))
    histories = raw_ids.indices(inputs["histories"])
    items, scores, known = _recommend(vae, blend, histories, popular, k, filters)
    return _signature(inputs, raw_ids.ids(items), scores, known)


def _inputs(dtype: tf.DType, name: str, filtered: bool) -> dict[str, tf.Tensor]:
    """Return the placeholders of a signature by the names of its inputs."""
    inputs = {"histories": tf.placeholder(dtype, [None, None], name)}
    if filtered:
        for rule in _FILTERS:
            inputs[rule] = tf.placeholder(dtype, [None, None], f"{name}_{rule}")
    return inputs


def _filter_rows(inputs: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    """Return ``allow`` and ``deny``; in the graph, refuse other numbers of rows than 1 and B."""
    users = tf.shape(inputs["histories"])[0]
    checked = []
    for name in _FILTERS:
        rows = tf.shape(inputs[name])[0]
        is_right = tf.equal(rows, 1) | tf.equal(rows, users)
        needed = f"{name} needs one row for all users or one for each; rows and users:"
        check = tf.raw_ops.Assert(condition=is_right, data=[tf.constant(needed), rows, users])
        with tf.control_dependencies([check]):
            checked.append(tf.identity(inputs[name]))
    return checked


def _signature(
    inputs: Mapping[str, tf.Tensor], items: tf.Tensor, scores: tf.Tensor, known: tf.Tensor
) -> Any:
    return tf.saved_model.predict_signature_def(
        inputs, {"items": items, "scores": scores, "known_items": known}
    )


class _Filters(NamedTuple):
    """Items that are allowed and denied, R rows: B, or one for all users.

    Attributes:
        allow: (R, A) int64 item indices; any outside [0, I) is padding.
        allows_all: (R,) bool, whether everything is allowed instead.
        deny: (R, D) int64 item indices, padded likewise.
    """

    allow: tf.Tensor
    allows_all: tf.Tensor
    deny: tf.Tensor

    def may_be_ranked(self, items: int, padded_items: int) -> tf.Tensor:
        """Return (B or 1, padded I) bool."""
        allowed = _membership(self.allow, items, padded_items) | self.allows_all[:, tf.newaxis]
        return allowed & ~_membership(self.deny, items, padded_items)


def _membership(indices: tf.Tensor, items: int, padded_items: int) -> tf.Tensor:
    """Return (R, padded I) bool, whether an item is among the (R, A) int64 indices of its row."""
    shape = tf.shape(indices, out_type=tf.int64)
    in_range = (indices >= 0) & (indices < items)
    # What is out of range gets an index of its own, which is cut off.
    column = tf.where_v2(in_range, indices, padded_items)
    row = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], shape)
    coordinates = tf.stack([row, column], axis=-1)
    ones = tf.ones_like(column, tf.int32)
    counts = tf.scatter_nd(coordinates, ones, tf.stack([shape[0], padded_items + 1]))
    return counts[:, :padded_items] > 0


def _recommend(
    vae: VAE,
    blend: Blend | None,
    padded: tf.Tensor,
    popular: NDArray[np.float32],
    k: int,
    filters: _Filters | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best unseen items of each history; for cold-start users the most popular items.

    Args:
        vae: model with I items.
        blend: what it is mixed with, if anything.
        padded: (B, L) int64 item indices; any outside [0, I) is padding, and repeated ones count
            once.
        popular: (I,) float32, score of each item by popularity.
        k: recommendations per user.
        filters: of the same users; None to rank all items.

    Returns:
        (B, K) int32 item indices, (B, K) float32 scores, (B,) int32 numbers of known items. Where
        nothing is left to recommend the item is -1 and the score the least finite one: JSON, in
        which servers answer, has no infinity.
    """
    catalogue, padded_items = vae.architecture.items, vae.architecture.padded_items
    in_range = (padded >= 0) & (padded < catalogue)
    # Sorted, equal items are neighbours; the first one is compared with -1, which no item is.
    ordered = tf.sort(tf.where(in_range, padded, tf.fill(tf.shape(padded), tf.int64.max)), axis=1)
    is_first = tf.not_equal(ordered, tf.pad(ordered, [[0, 0], [1, 0]], constant_values=-1)[:, :-1])
    is_known = is_first & (ordered < catalogue)
    counts = tf.reduce_sum(tf.cast(is_known, tf.int32), axis=1)
    users = PortableSparseBatch.of(tf.boolean_mask(ordered, is_known), counts)
    may_be_ranked = filters.may_be_ranked(catalogue, padded_items) if filters else None
    # A server's batches are small. Without chunks there is no loop, which converters may not take.
    item_scores = ItemScores(vae, blend)
    all_scores = item_scores(item_scores.inputs(users))
    if may_be_ranked is not None:
        all_scores = tf.where_v2(may_be_ranked, all_scores, float("-inf"))
    items, scores = best_items(all_scores, users, k)
    if may_be_ranked is None:
        best, popular_items = (one[tf.newaxis] for one in tf.math.top_k(popular, k))
    else:
        masked = tf.where_v2(may_be_ranked[:, :catalogue], popular, float("-inf"))
        popular_items, best = without_masked(*tf.math.top_k(masked, k))
    is_cold_start = tf.equal(counts, 0)[:, tf.newaxis]
    items = tf.where_v2(is_cold_start, popular_items, items)
    scores = tf.maximum(tf.where_v2(is_cold_start, best, scores), tf.float32.min)
    return items, scores, counts


def _write_item_ids(path: Path, item_ids: NDArray[np.generic], titles: pd.Series | None) -> None:
    frame = pd.DataFrame({"column": np.arange(len(item_ids)), "item_id": item_ids})
    if titles is not None:
        frame["title"] = titles
    # Arrow writes a missing title as an empty value, and to_csv as a quoted empty string.
    pa_csv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), path)
