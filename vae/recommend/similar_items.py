"""``--similar_items``: nearest neighbours of an item by the decoder's item vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vae.load.ids import find_item
from vae.utils.console import trimmed

if TYPE_CHECKING:
    from vae.recommend.recommender import Recommender


def similar_items_text(recommender: Recommender, raw_id: str) -> str:
    """List the nearest neighbours of an item, human-readable.

    Args:
        recommender: the model and its data.
        raw_id: the item, ``--similar_items``.
    """
    label = recommender.label(find_item(raw_id, recommender.dataset))
    lines = [f"Nearest to item {label}, by cosine:"]
    neighbours = recommender.similar_items(raw_id).fillna("")
    for item, cosine, *title in neighbours.itertuples(index=False):
        lines.append(f"{cosine:7.3f}  {item}  {''.join(title)}".rstrip())
    return "\n".join(map(trimmed, lines))


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
