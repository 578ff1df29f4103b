"""``--similar_items``: nearest neighbours of an item by the decoder's item vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.fold_in import find_ids
from vae.models.trained_model import TrainedModel

_NEIGHBOURS = 10
_EXAMPLES = 3


def find_item(raw_id: str, dataset: Dataset) -> int:
    """Item index of the raw id that ``--similar_items`` names.

    Raises:
        UserError: the data set has no such item.
    """
    ids = dataset.item_ids
    item = int(find_ids(np.asarray([raw_id], np.str_), ids)[0])
    if item < 0:
        examples = ", ".join(map(str, ids[:_EXAMPLES]))
        raise UserError(
            f"--similar_items {raw_id}: {dataset.name} has no such item; name one of its ids, "
            f"e.g. {examples}."
        )
    return item


def similar_items_table(
    dataset: Dataset, model: TrainedModel, item: int, titles: pd.Series | None
) -> str:
    """List the nearest neighbours of an item, human-readable.

    Args:
        dataset: prepared data set that the model was trained on, with I items.
        model: trained model; its decoder's kernel has a vector for each item.
        item: item index.
        titles: (I,) strings, NA for an item without a title; None to print no titles.
    """
    ids = dataset.item_ids
    names = [""] * len(ids) if titles is None else titles.fillna("").tolist()
    assert model.weights is not None
    kernel = model.weights["decoder/items/kernel"][:, : len(ids)]  # without the padded items
    neighbours, cosines = nearest_items(kernel, item, min(_NEIGHBOURS, len(ids) - 1))
    lines = [f"Nearest to item {ids[item]} {names[item]}".rstrip() + ", by cosine:"]
    for neighbour, cosine in zip(neighbours.tolist(), cosines.tolist(), strict=True):
        lines.append(f"{cosine:7.3f}  {ids[neighbour]}  {names[neighbour]}".rstrip())
    return "\n".join(lines)


def nearest_items(
    kernel: NDArray[np.float32], item: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k nearest neighbours of an item by cosine similarity.

    Args:
        kernel: (H, I) float32, a vector per item.
        item: item index; the item itself is left out.
        k: number of neighbours, less than I.

    Returns:
        (k,) int64 item indices, nearest first, and (k,) float32 cosines.
    """
    lengths = np.maximum(np.linalg.norm(kernel, axis=0), np.finfo(np.float32).tiny)
    cosines = kernel[:, item] @ kernel / (lengths * lengths[item])
    cosines[item] = -np.inf
    neighbours = np.argsort(-cosines, kind="stable")[:k]
    return neighbours, cosines[neighbours]
