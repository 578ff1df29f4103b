"""Raw ids of users and items <-> indices of a prepared data set."""

from __future__ import annotations

import numpy as np

from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.histories import find_ids

_EXAMPLES = 3


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
