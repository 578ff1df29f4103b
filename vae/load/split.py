"""Split of interactions into five matrices for strong generalisation, Liang et al. (2018), 4.2.

::

                 items (those of the training users)
              +---------------------------------------+
    training  |  all items                            |
      users   |                                       |
              +---------------------------------------+
  validation  |  fold-in 80 %       |  targets 20 %   |   each user's items, at random
        test  |  fold-in 80 %       |  targets 20 %   |
              +---------------------------------------+

With times, the targets may be each user's last items instead (``LAST``), and training may end at a
time (``split_time``), after which all targets are. The time of an interaction that occurs several
times is the earliest.

The split is a function of the seed and of the set of interactions: the order of the rows in the
file does not matter.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.errors import UserError
from vae.load.config import LAST, SplitOptions
from vae.load.dataset import HeldOut, Split, ones_at
from vae.load.reading.interactions import Interactions

Kept = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Which users and which items to keep."""

MIN_ITEMS_TO_SPLIT = 5
"""A held-out user with fewer items, as in Liang's code, has no targets: all are fold-in items."""


def split_interactions(interactions: Interactions, options: SplitOptions) -> Split:
    """Filter the interactions, split the users, and split the held-out users' items.

    The memory of the interactions is released early unless the caller keeps a reference.

    Raises:
        UserError: too few users are left, or no interaction to train on.
    """
    matrix = distinct(interactions)
    counts = read_counts(interactions, matrix.nnz)
    all_users, all_items = matrix.shape
    user_ids, item_ids = interactions.users.values, interactions.items.values
    del interactions  # large
    is_kept = kept(matrix, options)
    users, items = map(np.flatnonzero, is_kept)
    counts |= {
        "users": len(users),
        "dropped_users": all_users - len(users),
        "dropped_items": all_items - len(items),
    }

    rng = np.random.default_rng(options.seed)
    held_out = _held_out_count(len(users), options.heldout_users)
    rows = np.split(users[rng.permutation(len(users))], [-2 * held_out, -held_out])
    is_held_out = np.isin(np.arange(all_users), np.concatenate(rows[1:]))
    waiting = waiting_interactions(matrix, is_kept, is_held_out, user_ids, item_ids)
    if len(items) < all_items:
        matrix, item_ids = matrix[:, items], item_ids[items]
    train, validation, test = (matrix[part] for part in rows)
    train_ids, *held_out_ids = (user_ids[part] for part in rows)
    del matrix
    if options.split_time is not None:
        train, train_ids, dropped = _train_until(options.split_time, train, train_ids)
        counts |= dropped
    # The items of the training users are the catalogue.
    seen = np.flatnonzero(np.bincount(train.indices, minlength=train.shape[1]))
    train = train[:, seen]
    train.data = np.ones(train.nnz, np.uint8)
    held = [
        split_items(part[:, seen], ids, options, rng)
        for part, ids in zip((validation, test), held_out_ids, strict=True)
    ]
    in_training = sum(part.fold_in.nnz + part.targets.nnz for part in held)
    counts |= {
        "heldout_users": held_out,
        "heldout_interactions_dropped": validation.nnz + test.nnz - in_training,
    }
    split = Split(train, train_ids, item_ids[seen], held[0], held[1])
    return replace(split, counts=counts | split.sizes(), waiting=waiting)


def read_counts(interactions: Interactions, distinct: int) -> dict[str, int]:
    """Return the numbers of rows and interactions, ``distinct`` of which are distinct."""
    return {
        "rows": interactions.rows_read,
        "rows_missing": interactions.rows_missing,
        "interactions": len(interactions.users.codes),
        "distinct_interactions": distinct,
    }


def distinct(interactions: Interactions) -> csr_matrix:
    """Return the distinct interactions: (users, items), users and items by ascending id.

    Their values are uint8 ones or, with times, the earliest time of each, float64.
    """
    users, items, times = interactions.users, interactions.items, interactions.times
    shape = (len(users.values), len(items.values))
    if times is None:
        return ones_at(users.codes, items.codes, shape)
    order = np.lexsort((times, items.codes, users.codes))
    user, item = users.codes[order], items.codes[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    starts = np.append(0, np.cumsum(np.bincount(user[is_first], minlength=shape[0])))
    return csr_matrix((times[order[is_first]], item[is_first], starts), shape)


def _train_until(
    time: float, train: csr_matrix, user_ids: NDArray[np.generic]
) -> tuple[csr_matrix, NDArray[np.generic], dict[str, int]]:
    """Drop the training interactions after a time, and the users to whom none is left.

    Returns:
        Matrix of times and ids of those who stay, and the numbers of interactions and users
        dropped.
    """
    is_early = train.data <= time
    if not is_early.any():
        raise UserError(
            f"--split_time {time:.16g}: no interaction of a training user is at or before it; the "
            f"times go from {train.data.min():.16g} to {train.data.max():.16g}; pass a number of "
            "their unit (a date is in seconds since 1970)."
        )
    # Not by eliminating zeros: zero is a time.
    starts = np.append(0, np.cumsum(is_early))[train.indptr]
    kept = csr_matrix((train.data[is_early], train.indices[is_early], starts), train.shape)
    users = np.flatnonzero(np.diff(starts))
    dropped = {
        "train_interactions_after_split_time": train.nnz - kept.nnz,
        "train_users_after_split_time": train.shape[0] - len(users),
    }
    return kept[users], user_ids[users], dropped


def kept(
    interactions: csr_matrix,
    options: SplitOptions,
    known: tuple[NDArray[np.bool_] | bool, NDArray[np.bool_] | bool] = (False, False),
) -> Kept:
    """Return which users and items to keep: all but rare items and then users with few items.

    Each is dropped once, the order of Liang's code; ``known`` users and items are kept.
    """
    users_per_item = np.bincount(interactions.indices, minlength=interactions.shape[1])
    items = known[1] | (users_per_item >= options.min_users_per_item)
    ends = interactions.indptr
    if not items.all():  # a sum of 8 bytes per interaction
        ends = np.append(0, np.cumsum(items[interactions.indices]))[ends]
    return known[0] | (np.diff(ends) >= max(1, options.min_items_per_user)), items


def waiting_interactions(
    interactions: csr_matrix,
    is_kept: Kept,
    is_held_out: NDArray[np.bool_],
    user_ids: NDArray[np.generic],
    item_ids: NDArray[np.generic],
) -> pa.Table:
    """Return the interactions that are dropped as their user or item is rare, for ``--extend``.

    Those of held-out users are fixed and not among them.

    Returns:
        Raw ids in the columns ``user`` and ``item``, and ``time`` if there are times.
    """
    lengths = np.diff(interactions.indptr)
    is_waiting = np.repeat(~(is_kept[0] | is_held_out), lengths)  # a byte per interaction
    if not is_kept[1].all():
        is_waiting |= ~is_kept[1][interactions.indices] & np.repeat(~is_held_out, lengths)
    waiting = np.flatnonzero(is_waiting)
    users = np.searchsorted(interactions.indptr, waiting, side="right") - 1
    codes = {"user": users, "item": interactions.indices[waiting]}
    columns = {}
    for (name, column), ids in zip(codes.items(), (user_ids, item_ids), strict=True):
        used, places = np.unique(column, return_inverse=True)
        columns[name] = pa.DictionaryArray.from_arrays(places.astype(np.int32), pa.array(ids[used]))
    if interactions.dtype == np.float64:
        columns["time"] = interactions.data[waiting]
    return pa.table(columns)


def _held_out_count(users: int, requested: float) -> int:
    """Return the users of each held-out set: at least one, and at least one left to train on."""
    count = int(requested * users) if requested < 1 else int(requested)
    if count < 1 or users <= 2 * count:
        fix = (
            f"pass --heldout_users {max(1, users // 10)}"
            if users >= 3
            else "lower --min_items_per_user, --min_users_per_item or, if there is one, --threshold"
        )
        raise UserError(
            f"{users} users are left after filtering, too few to hold out 2 x {max(1, count)} of "
            f"them and train on the others; {fix}."
        )
    return count


def split_items(
    interactions: csr_matrix,
    user_ids: NDArray[np.generic],
    options: SplitOptions,
    rng: np.random.Generator,
) -> HeldOut:
    """Split each user's items; floor(test_proportion * n) of n items are targets.

    With ``split_time`` those of them that are not after it fold in. The (users, items) matrix has
    times if the options need them.
    """
    lengths = np.diff(interactions.indptr)
    targets = np.where(
        lengths >= MIN_ITEMS_TO_SPLIT, np.floor(options.test_proportion * lengths), 0
    )
    users = np.repeat(np.arange(len(lengths)), lengths)
    # Each user's items in random order, or the latest first; the first of them are targets.
    by_time = (-interactions.data,) if options.targets == LAST else ()
    shuffled = np.lexsort((rng.random(interactions.nnz), *by_time, users))
    ranks = np.arange(interactions.nnz) - interactions.indptr[users]
    is_target = np.empty(interactions.nnz, bool)
    is_target[shuffled] = ranks < targets[users]
    if options.split_time is not None:
        is_target &= interactions.data > options.split_time
    return HeldOut(_select(interactions, ~is_target), _select(interactions, is_target), user_ids)


def _select(interactions: csr_matrix, mask: NDArray[np.bool_]) -> csr_matrix:
    """Return the entries where the (nonzeros,) mask is set, as a uint8 matrix of the same shape."""
    part = csr_matrix(
        (mask, interactions.indices, interactions.indptr), interactions.shape, np.uint8, copy=True
    )
    part.eliminate_zeros()
    return part
