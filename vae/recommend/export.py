"""``--export``: a SavedModel that takes and returns raw ids, e.g. for TensorFlow Serving.

The folder holds TensorFlow's ``saved_model.pb`` and ``variables/``, and beside them
``item_ids.csv`` (item index, raw id, title) and ``model_card.md``. Two signatures, for B users
whose histories are padded to L items:

``serving_default``
    ``histories`` (B, L) raw ids, any unknown id is padding -> ``items`` (B, K) raw ids, best first.
``columns``
    ``histories`` (B, L) int64 item indices, padded with -1 -> ``items`` (B, K) int32 item indices.

Both also return ``scores`` (B, K) float32 and ``known_items`` (B,) int32, the number of items of
each history that the model knows. Where that is 0, the items are the most popular ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from vae.models.inference_graph import rank
from vae.models.sparse_input import PortableSparseBatch
from vae.models.trained_model import TrainedModel
from vae.models.vae import VAE
from vae.recommend.model_card import model_card
from vae.utils.atomic import check_creatable, temporary_folder, written

RAW_IDS, ITEM_INDICES = "serving_default", "columns"
"""Names of the signatures."""


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
    assert config.export is not None
    folder = config.export
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
    k = min(config.top_results, model.architecture.items)
    popular = popularity_scores(dataset.train)
    # A session of its own on the CPU: nothing is computed, and no GPU is named in the graph.
    with (
        tf.Graph().as_default(),
        tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})) as session,
    ):
        vae = VAE(model.architecture, config.seed, tf.as_dtype(config.export_dtype))
        signatures = {
            RAW_IDS: _raw_ids_signature(vae, dataset.item_ids, popular, k),
            ITEM_INDICES: _item_indices_signature(vae, popular, k),
        }
        model.load_into(session, vae)
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


def _item_indices_signature(vae: VAE, popular: NDArray[np.float32], k: int) -> Any:
    histories = tf.placeholder(tf.int64, [None, None], "item_indices")
    items, scores, known = _recommend(vae, histories, popular, k)
    return _signature(histories, items, scores, known)


def _raw_ids_signature(
    vae: VAE, item_ids: NDArray[np.generic], popular: NDArray[np.float32], k: int
) -> Any:
    ids = tf.constant(item_ids)
    indices = tf.range(len(item_ids), dtype=tf.int64)
    initializer = tf.lookup.KeyValueTensorInitializer(ids, indices)
    table = tf.lookup.StaticHashTable(initializer, default_value=-1)
    histories = tf.placeholder(ids.dtype, [None, None], "ids")
    items, scores, known = _recommend(vae, table.lookup(histories), popular, k)
    # A list that ends early has item indices of -1 and scores of -inf.
    padding_value = tf.constant([padding_value_of(item_ids)], ids.dtype)
    raw_items = tf.gather(tf.concat([padding_value, ids], axis=0), items + 1)
    return _signature(histories, raw_items, scores, known)


def _signature(histories: tf.Tensor, items: tf.Tensor, scores: tf.Tensor, known: tf.Tensor) -> Any:
    return tf.saved_model.predict_signature_def(
        {"histories": histories}, {"items": items, "scores": scores, "known_items": known}
    )


def _recommend(
    vae: VAE, padded: tf.Tensor, popular: NDArray[np.float32], k: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best unseen items of each history; for cold-start users the most popular items.

    Args:
        vae: model with I items.
        padded: (B, L) int64 item indices; any outside [0, I) is padding, and repeated ones count
            once.
        popular: (I,) float32, score of each item by popularity.
        k: recommendations per user.

    Returns:
        (B, K) int32 item indices, (B, K) float32 scores, (B,) int32 numbers of known items.
    """
    catalogue = vae.architecture.items
    in_range = (padded >= 0) & (padded < catalogue)
    # Sorted, equal items are neighbours; the first one is compared with -1, which no item is.
    ordered = tf.sort(tf.where(in_range, padded, tf.fill(tf.shape(padded), tf.int64.max)), axis=1)
    is_first = tf.not_equal(ordered, tf.pad(ordered, [[0, 0], [1, 0]], constant_values=-1)[:, :-1])
    is_known = is_first & (ordered < catalogue)
    counts = tf.reduce_sum(tf.cast(is_known, tf.int32), axis=1)
    users = PortableSparseBatch.of(tf.boolean_mask(ordered, is_known), counts)
    # A server's batches are small. Without chunks there is no loop, which converters may not take.
    items, scores = rank(vae, users, users, k, max_users=None)
    best, best_items = tf.math.top_k(popular, k)
    is_cold_start = tf.equal(counts, 0)[:, tf.newaxis]
    items = tf.where_v2(is_cold_start, best_items[tf.newaxis], items)
    scores = tf.where_v2(is_cold_start, best[tf.newaxis], scores)
    return items, scores, counts


def _write_item_ids(path: Path, item_ids: NDArray[np.generic], titles: pd.Series | None) -> None:
    frame = pd.DataFrame({"column": np.arange(len(item_ids)), "item_id": item_ids})
    if titles is not None:
        frame["title"] = titles
    # Arrow writes a missing title as an empty value, and to_csv as a quoted empty string.
    pa_csv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), path)
