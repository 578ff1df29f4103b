"""``--similar_items``: nearest items by the decoder's vectors, to see that a model makes sense."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.fold_in import find_ids
from vae.models.trained_model import TrainedModel

_SHOWN = 10
_EXAMPLES = 3


def find_item(raw_id: str, dataset: Dataset) -> int:
    """The item index of ``--similar_items``.

    Raises:
        UserError: the data set has no such item.
    """
    ids = dataset.item_ids
    item = int(find_ids(np.asarray([raw_id], np.str_), ids)[0])
    if item < 0:
        examples = ", ".join(map(str, ids[:_EXAMPLES]))
        raise UserError(
            f"--similar_items {raw_id}: {dataset.name} has no such item; "
            f"its ids are like {examples}."
        )
    return item


def similar_items_table(
    dataset: Dataset, model: TrainedModel, column: int, titles: pa.Array | None
) -> str:
    """The items nearest to one of the data set, human-readable.

    Args:
        dataset: what the model was trained on.
        model: whose decoder has a vector for each item.
        column: the item's index.
        titles: (items,) strings to print beside the ids, if there are any.
    """
    ids = dataset.item_ids
    names = [""] * len(ids) if titles is None else titles.fill_null("").to_pylist()
    assert model.weights is not None
    kernel = model.weights["decoder/items/kernel"][:, : len(ids)]
    nearest, cosines = nearest_columns(kernel, column, min(_SHOWN, len(ids) - 1))
    lines = [f"Nearest to item {ids[column]} {names[column]}".rstrip() + ", by cosine:"]
    for item, cosine in zip(nearest.tolist(), cosines.tolist(), strict=True):
        lines.append(f"{cosine:7.3f}  {ids[item]}  {names[item]}".rstrip())
    return "\n".join(lines)


def nearest_columns(
    kernel: NDArray[np.float32], column: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k columns whose vectors point most nearly the way of the given one's.

    Args:
        kernel: (H, I) float32, a vector for each column.
        column: the one to compare with, itself left out.
        k: less than I.

    Returns:
        (k,) columns, nearest first, and their cosines.
    """
    lengths = np.maximum(np.linalg.norm(kernel, axis=0), np.finfo(np.float32).tiny)
    cosines = kernel[:, column] @ kernel / (lengths * lengths[column])
    cosines[column] = -np.inf
    nearest = np.argsort(-cosines, kind="stable")[:k]
    return nearest, cosines[nearest]
