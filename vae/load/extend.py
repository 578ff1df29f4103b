"""``--extend``: new interactions for a prepared data set, whose users and items keep their indices.

Held-out users keep their fold-in items and targets. New users and items come after the known ones
as soon as they are not rare, all interactions so far counted: what is added in several steps is
what would be added in one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.load.config import SplitOptions
from vae.load.dataset import Dataset, HeldOut, Split, ones_at
from vae.load.ids import concatenate_ids, find_ids
from vae.load.reading.interactions import Interactions
from vae.load.split import distinct, kept, split_items, waiting_interactions


def extend(
    data: Dataset, interactions: Interactions, options: SplitOptions, hold_out: bool
) -> Split:
    """Return a data set with further interactions; ``counts`` says what is new.

    They are those that wait since the last preparation, and new ones. If ``hold_out`` is set, some
    of the new users go to the held-out sets.
    """
    matrix, user_ids = distinct(interactions), interactions.users.values
    held_out_ids = concatenate_ids(*(part.user_ids for part in data.held_out))
    is_fixed = find_ids(user_ids, held_out_ids) >= 0
    item_of = find_ids(interactions.items.values, data.item_ids)
    fixed = _unknown(matrix[is_fixed], user_ids[is_fixed], item_of, data)
    matrix, user_ids = matrix[~is_fixed], user_ids[~is_fixed]

    row_of = find_ids(user_ids, data.train_user_ids)
    is_kept, item_is_kept = kept(matrix, options, (row_of >= 0, item_of >= 0))
    set_of = _sets(data.counts, user_ids, is_kept & (row_of < 0) & hold_out, options.seed)
    rows = np.repeat(np.arange(len(user_ids)), np.diff(matrix.indptr))
    is_added = (is_kept & (set_of == 0))[rows] & item_is_kept[matrix.indices]
    if options.split_time is not None:
        is_added &= matrix.data <= options.split_time
    rows, columns = rows[is_added], matrix.indices[is_added]
    is_kept &= (row_of >= 0) | (set_of > 0) | (np.bincount(rows, minlength=len(user_ids)) > 0)
    waiting = waiting_interactions(
        matrix, (is_kept, item_is_kept), set_of > 0, user_ids, interactions.items.values
    )
    train_ids, row_of = _appended(data.train_user_ids, user_ids, row_of, rows)
    item_ids, item_of = _appended(data.item_ids, interactions.items.values, item_of, columns)

    held, dropped, known = [], 0, np.flatnonzero(item_of >= 0)
    rng = np.random.default_rng(options.seed)
    for number, part in enumerate(data.held_out, start=1):
        new = np.flatnonzero(set_of == number)
        ids = concatenate_ids(part.user_ids, user_ids[new])
        split = split_items(matrix[new][:, known], user_ids[new], options, rng)
        dropped += matrix[new].nnz - split.fold_in.nnz - split.targets.nnz
        shape = (len(ids), len(item_ids))
        fold_in, targets = (
            _grown(old, len(part.user_ids) + more.row, item_of[known[more.col]], shape)
            for old, more in (
                (part.fold_in, split.fold_in.tocoo()),
                (part.targets, split.targets.tocoo()),
            )
        )
        held.append(HeldOut(fold_in, targets, ids))
    train = _grown(data.train, row_of[rows], item_of[columns], (len(train_ids), len(item_ids)))
    grown = Split(train, train_ids, item_ids, held[0], held[1], waiting=waiting)
    news = {
        "new_interactions": train.nnz - data.train.nnz,
        "new_users": len(grown.all_user_ids()) - len(data.all_user_ids()),
        "new_items": len(item_ids) - len(data.item_ids),
        "new_interactions_of_heldout_users": fixed,
        "waiting_interactions": waiting.num_rows,
        "heldout_interactions_dropped": data.counts["heldout_interactions_dropped"] + dropped,
    }
    return replace(grown, counts=data.counts | grown.sizes() | news)


def _unknown(
    matrix: csr_matrix, user_ids: NDArray[np.generic], item_of: NDArray[np.int64], data: Dataset
) -> int:
    """Return the number of interactions of held-out users that are not in the data set."""
    rows = np.repeat(find_ids(user_ids, data.all_user_ids()), np.diff(matrix.indptr))
    columns = item_of[matrix.indices]
    is_item = columns >= 0
    return int(matrix.nnz - data.all_histories()[rows[is_item], columns[is_item]].sum())


def _sets(
    counts: Mapping[str, int], user_ids: NDArray[np.generic], is_new: NDArray[np.bool_], seed: int
) -> NDArray[np.int64]:
    """Return (users,) the set of each user: 0 for training, 1 for validation, 2 for test.

    That of a new user is a function of the seed and the id: no step changes that of another.
    """
    sets = np.zeros(len(user_ids), np.int64)
    fraction = counts["heldout_users"] / counts["users"]  # of the first preparation
    for user in np.flatnonzero(is_new):
        digest = hashlib.sha256(f"{seed} {user_ids[user]}".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / 2**64
        sets[user] = (draw < 2 * fraction) + (draw < fraction)
    return sets


def _appended(
    known: NDArray[np.generic],
    ids: NDArray[np.generic],
    index_of: NDArray[np.int64],
    used: NDArray[np.integer],
) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Append the unknown ones of the ``used`` ids to the known ids.

    Returns:
        The ids, and (ids,) the index of each, -1 for those that are neither known nor used.
    """
    is_new = (index_of < 0) & (np.bincount(used, minlength=len(ids)) > 0)
    index_of = np.where(is_new, len(known) + np.cumsum(is_new) - 1, index_of)
    return concatenate_ids(known, ids[is_new]), index_of


def _grown(
    matrix: csr_matrix,
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    shape: tuple[int, int],
) -> csr_matrix:
    """Return a matrix of a larger shape with more ones."""
    old = matrix.tocoo()
    return ones_at(np.append(old.row, rows), np.append(old.col, columns), shape)
