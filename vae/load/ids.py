"""Raw ids of users and items <-> indices of a prepared data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vae.errors import UserError
from vae.load.dataset import Dataset

_EXAMPLES = 3


def find_ids(ids: NDArray[np.generic], known: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the index of each raw id among the known ones, -1 if it is unknown.

    A single id that is not a plain integer makes all ids of a column strings; these still match
    integers.

    Args:
        ids: (ids,) raw ids, integers or strings.
        known: (n,) distinct raw ids, at least one.

    Returns:
        (ids,) int64 indices into ``known``.
    """
    if ids.dtype.kind != known.dtype.kind:
        ids, known = ids.astype(np.str_), known.astype(np.str_)
    order = np.argsort(known)
    nearest = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(order) - 1)]
    return np.where(known[nearest] == ids, nearest, -1)


def concatenate_ids(first: NDArray[np.generic], second: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return raw ids one after another: strings, as short as possible, unless all are integers."""
    if first.dtype.kind == second.dtype.kind:
        return np.concatenate([first, second])
    return np.array([*map(str, first.tolist()), *map(str, second.tolist())], np.str_)


def find_item(raw_id: str, dataset: Dataset, name: str = "--similar_items") -> int:
    """Return the item index of a raw id, the value of the flag or argument ``name``.

    Raises:
        UserError: the data set has no such item.
    """
    item = int(find_ids(np.asarray([raw_id], np.str_), dataset.item_ids)[0])
    if item < 0:
        examples = ", ".join(map(str, dataset.item_ids[:_EXAMPLES]))
        raise UserError(
            f"{name} {raw_id}: {dataset.name} has no such item; name one of its ids, "
            f"e.g. {examples}."
        )
    return item


def unknown_ids(
    where: str, column: str, kind: str, ids: NDArray[np.generic], known: NDArray[np.generic]
) -> UserError:
    """Return the error for a file without any id of the data set: they may be written differently.

    ``where`` names the file, after its flag; ``kind`` says what the ids should be, such as "an item
    of ml-20m".
    """
    return UserError(
        f"{where}: no id in its column {column!r} is {kind}; its ids are like "
        f"{str(ids[0])!r}, those of the data set like {str(known[0])!r}: write them in the same "
        "way."
    )
