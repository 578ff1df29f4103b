"""``--similar_items``: nearest items by the decoder's vectors, to see that a model makes sense."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vae.config import Config
from vae.errors import UserError
from vae.load import Dataset
from vae.load.histories import find_ids
from vae.models.inference import Model
from vae.recommend.titles import read_titles

_SHOWN = 10
_EXAMPLES = 3


def similar_items_table(config: Config, dataset: Dataset, model: Model) -> str:
    """The items nearest to that of ``--similar_items``, for people.

    Raises:
        UserError: the data set has no such item, or the file of titles cannot be read.
    """
    ids = dataset.item_ids
    column = int(find_ids(np.asarray([config.similar_items], np.str_), ids)[0])
    if column < 0:
        examples = ", ".join(map(str, ids[:_EXAMPLES]))
        raise UserError(
            f"--similar_items {config.similar_items}: {dataset.name} has no such item; "
            f"its ids are like {examples}."
        )
    found = read_titles(config, dataset)
    titles = [""] * len(ids) if found is None else found.fill_null("").to_pylist()
    assert model.weights is not None
    kernel = model.weights["decoder/items/kernel"][:, : len(ids)]
    nearest, cosines = nearest_columns(kernel, column, min(_SHOWN, len(ids) - 1))
    lines = [f"Nearest to item {ids[column]} {titles[column]}".rstrip() + ", by cosine:"]
    for item, cosine in zip(nearest.tolist(), cosines.tolist(), strict=True):
        lines.append(f"{cosine:7.3f}  {ids[item]}  {titles[item]}".rstrip())
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
