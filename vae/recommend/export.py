"""``--export``: a SavedModel that takes and returns raw ids, e.g. for TensorFlow Serving.

Beside it lie ``item_ids.csv`` (item index, raw id, title) and ``model_card.md``. The signatures,
for B users whose histories are padded to L items:

``serving_default``
    ``histories`` (B, L) raw ids, any unknown id is padding -> ``items`` (B, K) raw ids, best first.
``item_indices``
    ``histories`` (B, L) int64 item indices, padded with -1 -> ``items`` (B, K) int32 item indices.

``filtered``, ``filtered_item_indices``
    The same with two more inputs, ``allow`` and ``deny``: (B or 1, A) ids or indices, padded like
    histories. A row of ``allow`` that holds nothing but padding values allows everything. They are
    signatures of their own because a server demands every input of a signature.

All also return ``scores`` (B, K) float32 and ``known_items`` (B,) int32, the number of items of
each history that the model knows. Where that is 0, the items are the most popular ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.baselines.popularity import popularity_scores
from vae.config import ENCODERS
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.models.graph.inference_graph import ItemScores, best_items, without_masked
from vae.models.graph.sparse_input import SparseBatch
from vae.models.graph.vae import VAE
from vae.models.inference.trained_model import TrainedModel
from vae.report.environment import dataset_metadata, software_versions
from vae.utils.atomic import temporary_folder
from vae.utils.outputs import check_creatable, report_write_errors

_FILTERS = ("allow", "deny")


def check_export(folder: Path) -> None:
    """Check, before a long run, that a finished export can replace its folder.

    Raises:
        UserError: the folder is not empty, cannot be created or replaced, or a package is missing.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise UserError(
            "--export: the model card needs jinja2, which is not installed in this Python; run "
            "'make env'."
        )
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
    folder: Path,
    dataset: Dataset,
    model: TrainedModel,
    metrics: Mapping[str, float],
    titles: pd.Series | None,
    k: int,
    dtype: str,
) -> None:
    """Write the folder of ``--export``, complete or not at all.

    The metrics are for the model card. There are (I,) titles, NA for an item without one, or none.
    Users get K = min(k, I) items; the dtype is that of the last layer.

    Raises:
        UserError: the folder cannot be written.
    """
    items = len(dataset.item_ids)
    k = min(k, items)
    with report_write_errors(f"--export {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder) as temporary:
            try:
                _save_model(temporary, dataset, model, k, dtype)
            except tf.errors.OpError as error:
                raise OSError(0, error.message.splitlines()[0]) from None
            item_ids = pd.DataFrame({"item_index": range(items), "item_id": dataset.item_ids})
            if titles is not None:
                item_ids["title"] = titles
            # Arrow writes a missing title as an empty value, and to_csv as a quoted empty string.
            table = pa.Table.from_pandas(item_ids, preserve_index=False)
            pa_csv.write_csv(table, temporary / "item_ids.csv")
            card = _model_card(dataset, model, metrics, k, dtype)
            # A path in it may hold bytes that are not UTF-8.
            (temporary / "model_card.md").write_bytes(card.encode(errors="backslashreplace"))
            temporary.replace(folder)


def padding_value_of(item_ids: NDArray[np.generic]) -> str | int:
    """Return the padding value of raw ids, (I,) int64 or strings: an id that no item has."""
    if item_ids.dtype.kind == "U":
        return ""
    return -1 if -1 not in item_ids else int(np.iinfo(np.int64).min)


def _save_model(folder: Path, dataset: Dataset, model: TrainedModel, k: int, dtype: str) -> None:
    # A session of its own on the CPU: nothing is computed, and no GPU is named in the graph.
    with (
        tf.Graph().as_default(),
        tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})) as session,
    ):
        ranking = _Ranking(model, dtype, popularity_scores(dataset.train), k)
        ids = _raw_ids(dataset.item_ids)
        signatures = {
            "serving_default": ranking.signature(ids, filtered=False),
            "item_indices": ranking.signature(_ITEM_INDICES, filtered=False),
            "filtered": ranking.signature(ids, filtered=True),
            "filtered_item_indices": ranking.signature(_ITEM_INDICES, filtered=True),
        }
        model.load_into(session)
        fill_tables = tf.tables_initializer()
        # A converter takes one signature out of the graph, and may leave the tables behind.
        tf.get_default_graph().clear_collection(tf.GraphKeys.TABLE_INITIALIZERS)
        builder = tf.saved_model.Builder(str(folder))
        tags = [tf.saved_model.tag_constants.SERVING]
        builder.add_meta_graph_and_variables(
            session, tags, signatures, main_op=fill_tables, strip_default_attrs=True
        )
        builder.save()


class _Ids(NamedTuple):
    """What stands for an item in a signature: its raw id or its index.

    Attributes:
        dtype: of the inputs.
        padding_value: of the inputs and outputs.
        to_indices: ids -> int64 item indices, outside [0, I) for an id that no item has.
        from_indices: int32 item indices, -1 for none -> ids.
    """

    dtype: tf.DType
    padding_value: tf.Tensor | int
    to_indices: Callable[[tf.Tensor], tf.Tensor]
    from_indices: Callable[[tf.Tensor], tf.Tensor]


_ITEM_INDICES = _Ids(tf.int64, -1, lambda indices: indices, lambda indices: indices)


def _raw_ids(item_ids: NDArray[np.generic]) -> _Ids:
    """Add the table of the raw ids, (I,) int64 or strings, to the graph."""
    ids = tf.constant(item_ids)
    padding_value = tf.constant([padding_value_of(item_ids)], ids.dtype)
    indices = tf.range(len(item_ids), dtype=tf.int64)
    initializer = tf.lookup.KeyValueTensorInitializer(ids, indices)
    table = tf.lookup.StaticHashTable(initializer, default_value=-1)
    padded = tf.concat([padding_value, ids], axis=0)
    return _Ids(ids.dtype, padding_value, table.lookup, lambda items: tf.gather(padded, items + 1))


class _Ranking:
    """The best unseen items of each history; for cold-start users the most popular items.

    The variables of the model are added to the graph. ``popularity`` is (I,) float32.
    """

    def __init__(
        self, model: TrainedModel, dtype: str, popularity: NDArray[np.float32], k: int
    ) -> None:
        vae = VAE(model.architecture, seed=0, item_dtype=tf.as_dtype(dtype))
        self._encode, self._scores = vae.encode, ItemScores(vae, model.new_blend())
        self._items, self._padded_items = len(popularity), model.architecture.padded_items
        self._popularity, self._k = popularity[np.newaxis], k

    def signature(self, ids: _Ids, filtered: bool) -> Any:
        """Return a signature, see the module."""
        names = ("histories", *(_FILTERS if filtered else ()))
        inputs = {name: tf.placeholder(ids.dtype, [None, None], name) for name in names}
        rankable = None
        if filtered:
            allow, deny = (_checked_rows(inputs, name) for name in _FILTERS)
            rankable = tf.reduce_all(tf.equal(allow, ids.padding_value), axis=1, keepdims=True)
            rankable |= self._is_listed(ids.to_indices(allow))
            rankable &= ~self._is_listed(ids.to_indices(deny))
        seen = self._is_listed(ids.to_indices(inputs["histories"]))
        items, scores, known = self._rank(seen, rankable)
        outputs = {"items": ids.from_indices(items), "scores": scores, "known_items": known}
        return tf.saved_model.predict_signature_def(inputs, outputs)

    def _rank(
        self, seen: tf.Tensor, rankable: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Rank items for B users.

        Args:
            seen: (B, padded I) bool, the items of the histories.
            rankable: (B or 1, padded I) bool, the only items to rank; None to rank all.

        Returns:
            (B, K) int32 item indices, (B, K) float32 scores, (B,) int32 numbers of known items.
            Where nothing is left to recommend the item is -1 and the score the least finite one:
            JSON, in which servers answer, has no infinity.
        """
        known = tf.reduce_sum(tf.cast(seen, tf.int32), axis=1)
        users = SparseBatch.of(tf.where(seen)[:, 1], known, portable=True)
        # A server's batches are small: no chunks, whose loop converters may not take.
        inputs = self._scores.inputs(users, self._encode(users)[0])
        scores, popularity = self._scores(inputs), self._popularity
        if rankable is not None:
            scores = tf.where_v2(rankable, scores, float("-inf"))
            popularity = tf.where_v2(rankable[:, : self._items], popularity, float("-inf"))
        items, scores = best_items(scores, users, self._k)
        popular_items, popularity = without_masked(*tf.math.top_k(popularity, self._k))
        is_cold_start = tf.equal(known, 0)[:, tf.newaxis]
        items = tf.where_v2(is_cold_start, popular_items, items)
        scores = tf.where_v2(is_cold_start, popularity, scores)
        return items, tf.maximum(scores, tf.float32.min), known

    def _is_listed(self, indices: tf.Tensor) -> tf.Tensor:
        """Return (R, padded I) bool, whether an item is among the (R, A) int64 indices of its row.

        Indices outside [0, I) are padding.
        """
        shape = tf.shape(indices, out_type=tf.int64)
        # What is out of range gets an index of its own, which is cut off.
        is_item = (indices >= 0) & (indices < self._items)
        column = tf.where_v2(is_item, indices, self._padded_items)
        row = tf.broadcast_to(tf.range(shape[0])[:, tf.newaxis], shape)
        ones = tf.ones_like(column, tf.int32)
        counts_shape = tf.stack([shape[0], self._padded_items + 1])
        counts = tf.scatter_nd(tf.stack([row, column], axis=-1), ones, counts_shape)
        return counts[:, : self._padded_items] > 0


def _checked_rows(inputs: Mapping[str, tf.Tensor], name: str) -> tf.Tensor:
    """Return an input; in the graph, refuse other numbers of rows than 1 and that of histories."""
    users, rows = (tf.shape(inputs[one])[0] for one in ("histories", name))
    is_right = tf.equal(rows, 1) | tf.equal(rows, users)
    needed = f"{name} needs one row for all users or one for each; rows and users:"
    check = tf.raw_ops.Assert(condition=is_right, data=[tf.constant(needed), rows, users])
    with tf.control_dependencies([check]):
        return tf.identity(inputs[name])


def _model_card(
    dataset: Dataset, model: TrainedModel, metrics: Mapping[str, float], k: int, dtype: str
) -> str:
    """Render ``model_card.md.j2``, which lies beside this module."""
    from jinja2 import StrictUndefined, Template  # after check_export

    template = Template(
        Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    card: str = template.render(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        dataset=dataset_metadata(dataset),
        model=model,
        paper=ENCODERS[model.architecture.encoder],
        padding_value=padding_value_of(dataset.item_ids),
        k=k,
        dtype=dtype,
        metrics=metrics,
        versions=software_versions(),
    )
    return card
