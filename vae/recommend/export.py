"""``--export``: a SavedModel that answers in raw ids, for TensorFlow Serving or plain TensorFlow.

The folder holds TensorFlow's ``saved_model.pb`` and ``variables/``, and beside them
``item_ids.csv`` (column, raw id, title) and ``model_card.md``. Two signatures, for B users whose
histories are padded to L items:

``serving_default``
    ``histories`` (B, L) raw ids, any unknown id is padding -> ``items`` (B, K) raw ids, best first.
``columns``
    ``histories`` (B, L) int64 columns, -1 is padding -> ``items`` (B, K) int32 columns.

Both also yield ``scores`` (B, K) float32 and ``known_items`` (B,) int32, how many items of the
history the model knows. Where that is 0 the items are the most popular ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
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
from vae.utils.atomic import check_creatable, temporary_folder

RAW_IDS, COLUMNS = "serving_default", "columns"
"""Names of the signatures."""


def check_export(folder: Path) -> None:
    """Make sure, before a long run, that a finished export can take the place of its folder.

    Raises:
        UserError: the folder is in use, or cannot be made or replaced.
    """
    if folder.name in ("", ".."):
        raise UserError(f"--export {folder}: cannot be replaced; name a new folder.")
    check_creatable(folder, "--export")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--export {folder}: is in use; name a folder that is empty or not there.")
    if folder.is_symlink() or folder.is_mount():
        raise UserError(
            f"--export {folder}: is a link or a mount point, which a finished export cannot "
            "replace; name a folder inside it."
        )


def export(
    config: Config,
    dataset: Dataset,
    model: TrainedModel,
    figures: Mapping[str, float],
    titles: pa.Array | None,
) -> Path:
    """Writes the folder of ``--export``, whole or not at all.

    Args:
        config: the flags.
        dataset: what the model was trained on.
        model: what to export.
        figures: metrics for the model card.
        titles: (items,) strings to write beside the ids, if there are any.

    Raises:
        UserError: the folder cannot be written.
    """
    assert config.export is not None
    folder = config.export
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as temporary:
            save_model(temporary, config, dataset, model)
            _write_item_ids(temporary / "item_ids.csv", dataset.item_ids, titles)
            padding_value = padding_value_of(dataset.item_ids)
            card = model_card(config, dataset, model, figures, padding_value)
            (temporary / "model_card.md").write_text(card, encoding="utf-8")
            temporary.replace(folder)
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message.splitlines()[0]
        raise UserError(f"--export {folder}: cannot be written ({reason}).", exit_code=1) from None
    return folder


def save_model(
    folder: Path,
    config: Config,
    dataset: Dataset,
    model: TrainedModel,
) -> None:
    """Writes the SavedModel alone.

    Raises:
        OSError: or ``tf.errors.OpError``, the folder cannot be written.
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
            COLUMNS: _columns_signature(vae, popular, k),
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
    """What stands for no item where raw ids do: an id that no item has."""
    if item_ids.dtype.kind == "U":
        return ""
    return -1 if -1 not in item_ids else int(np.iinfo(np.int64).min)


def _columns_signature(vae: VAE, popular: NDArray[np.float32], k: int) -> Any:
    columns = tf.placeholder(tf.int64, [None, None], "columns")
    items, scores, known = _recommend(vae, columns, popular, k)
    return _signature(columns, items, scores, known)


def _raw_ids_signature(
    vae: VAE, item_ids: NDArray[np.generic], popular: NDArray[np.float32], k: int
) -> Any:
    ids = tf.constant(item_ids)
    columns = tf.range(len(item_ids), dtype=tf.int64)
    initializer = tf.lookup.KeyValueTensorInitializer(ids, columns)
    table = tf.lookup.StaticHashTable(initializer, default_value=-1)
    raw = tf.placeholder(ids.dtype, [None, None], "ids")
    items, scores, known = _recommend(vae, table.lookup(raw), popular, k)
    # A list that ends early has columns of -1 and scores of -inf.
    padding_value = tf.constant([padding_value_of(item_ids)], ids.dtype)
    answers = tf.gather(tf.concat([padding_value, ids], axis=0), items + 1)
    return _signature(raw, answers, scores, known)


def _signature(histories: tf.Tensor, items: tf.Tensor, scores: tf.Tensor, known: tf.Tensor) -> Any:
    return tf.saved_model.predict_signature_def(
        {"histories": histories}, {"items": items, "scores": scores, "known_items": known}
    )


def _recommend(
    vae: VAE, padded: tf.Tensor, popular: NDArray[np.float32], k: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The best unseen items of each history, or the most popular ones if it has no known item.

    Args:
        vae: the model.
        padded: (B, L) int64 columns; what is out of range is ignored, and a column counts once.
        popular: (I,) score of each item.
        k: recommendations a user.

    Returns:
        (B, K) int32 columns, (B, K) float32 scores, (B,) int32 known items.
    """
    catalogue = vae.architecture.items
    in_range = (padded >= 0) & (padded < catalogue)
    # Sorted, equal columns are neighbours; the first column is compared with one that never is.
    ordered = tf.sort(tf.where(in_range, padded, tf.fill(tf.shape(padded), tf.int64.max)), axis=1)
    first_of_its_kind = tf.not_equal(
        ordered, tf.pad(ordered, [[0, 0], [1, 0]], constant_values=-1)[:, :-1]
    )
    known = first_of_its_kind & (ordered < catalogue)
    counts = tf.reduce_sum(tf.cast(known, tf.int32), axis=1)
    users = PortableSparseBatch.of(tf.boolean_mask(ordered, known), counts)
    # A server's batches are small: no slices, hence no loop for other runtimes to stumble over.
    items, scores = rank(vae, users, users, k, max_users=None)
    best, best_items = tf.math.top_k(popular, k)
    cold = tf.equal(counts, 0)[:, tf.newaxis]
    items = tf.where_v2(cold, best_items[tf.newaxis], items)
    scores = tf.where_v2(cold, best[tf.newaxis], scores)
    return items, scores, counts


def _write_item_ids(path: Path, item_ids: NDArray[np.generic], titles: pa.Array | None) -> None:
    table = {"column": pa.array(np.arange(len(item_ids))), "item_id": pa.array(item_ids)}
    if titles is not None:
        table["title"] = titles
    pa_csv.write_csv(pa.table(table), path)
