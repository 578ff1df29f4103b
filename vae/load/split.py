"""From ratings to the five matrices of Liang et al. (2018), section 4.2 (strong generalisation).

::

                 items (those of the training users)
              +---------------------------------------+
    training  |  everything                           |
      users   |                                       |
              +---------------------------------------+
  validation  |  fold in 80 %       |  rank 20 %      |   each user's items, at random
        test  |  fold in 80 %       |  rank 20 %      |
              +---------------------------------------+

All of it is a function of the seed and of the set of (user, item) pairs: the order of the rows in
the file does not matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

from vae.errors import UserError
from vae.load.config import SplitOptions
from vae.load.dataset import HeldOut, Split
from vae.load.ratings import Ratings

MIN_ITEMS_TO_SPLIT = 5
"""A held-out user with fewer items than this (Liang's code) folds them all in: nothing to rank."""


def split_ratings(ratings: Ratings, options: SplitOptions) -> Split:
    """Filters the pairs, splits the users, and splits the held-out users' items.

    Raises:
        UserError: too few users are left.
    """
    pairs = _distinct_pairs(ratings)
    counts = {
        "rows": ratings.rows_read,
        "interactions": len(ratings.users.codes),
        "distinct_interactions": pairs.nnz,
    }
    all_users, all_items = pairs.shape
    user_ids, item_ids = ratings.users.values, ratings.items.values
    # What is large goes as soon as it has been used; the caller does not hold it either.
    del ratings
    pairs, user_ids, item_ids = _filter(pairs, user_ids, item_ids, options)
    counts |= {
        "users": pairs.shape[0],
        "dropped_users": all_users - pairs.shape[0],
        "dropped_items": all_items - pairs.shape[1],
    }

    rng = np.random.default_rng(options.seed)
    held_out = _held_out_count(pairs.shape[0], options.heldout_users)
    order = rng.permutation(pairs.shape[0])
    train_rows, validation_rows, test_rows = np.split(order, [-2 * held_out, -held_out])

    train, validation, test = pairs[train_rows], pairs[validation_rows], pairs[test_rows]
    del pairs
    seen = np.flatnonzero(np.bincount(train.indices, minlength=train.shape[1]))
    train = train[:, seen]
    item_ids = item_ids[seen]
    held = [
        _fold(part[:, seen], user_ids[rows], options.test_proportion, rng)
        for part, rows in ((validation, validation_rows), (test, test_rows))
    ]
    counts |= {
        "items": len(item_ids),
        "train_users": train.shape[0],
        "train_interactions": train.nnz,
        "heldout_users": held_out,
        "heldout_interactions_dropped": validation.nnz
        + test.nnz
        - sum(part.fold_in.nnz + part.targets.nnz for part in held),
    }
    for name, part in zip(("validation", "test"), held, strict=True):
        counts[f"{name}_fold_in_interactions"] = part.fold_in.nnz
        counts[f"{name}_target_interactions"] = part.targets.nnz
        counts[f"{name}_users_without_targets"] = int((np.diff(part.targets.indptr) == 0).sum())
    train.data = train.data.view(np.uint8)
    return Split(train, user_ids[train_rows], item_ids, held[0], held[1], counts)


def _distinct_pairs(ratings: Ratings) -> csr_matrix:
    """(users, items) bool matrix, rows and columns by ascending id; a pair counts once."""
    users, items = ratings.users, ratings.items
    ones = np.ones(len(users.codes), bool)
    shape = (len(users.values), len(items.values))
    # SciPy sorts by counting, several times faster than a sort of the pairs; True + True is True.
    return coo_matrix((ones, (users.codes, items.codes)), shape).tocsr()


def _filter(
    pairs: csr_matrix,
    user_ids: NDArray[np.generic],
    item_ids: NDArray[np.generic],
    options: SplitOptions,
) -> tuple[csr_matrix, NDArray[np.generic], NDArray[np.generic]]:
    """The users and items with enough pairs, items first, once (Liang's order)."""
    users_per_item = np.bincount(pairs.indices, minlength=pairs.shape[1])
    if users_per_item.min() < options.min_users_per_item:
        items = np.flatnonzero(users_per_item >= options.min_users_per_item)
        pairs, item_ids = pairs[:, items], item_ids[items]
    users = np.flatnonzero(np.diff(pairs.indptr) >= max(1, options.min_items_per_user))
    return pairs[users], user_ids[users], item_ids


def _held_out_count(users: int, asked: float) -> int:
    """Users of each held-out set; at least one, with at least one user left for training."""
    count = int(asked * users) if asked < 1 else int(asked)
    if count < 1 or users <= 2 * count:
        advice = (
            f"give --heldout_users {max(1, users // 10)}"
            if users >= 3
            else "lower --threshold, --min_items_per_user or --min_users_per_item"
        )
        raise UserError(
            f"{users} users are left after filtering, too few to hold out 2 x {max(1, count)} of "
            f"them and train on the others; {advice}."
        )
    return count


def _fold(
    pairs: csr_matrix, user_ids: NDArray[np.generic], proportion: float, rng: np.random.Generator
) -> HeldOut:
    """Splits each user's items at random; floor(proportion * n) of n are to be ranked."""
    lengths = np.diff(pairs.indptr)
    to_rank = np.where(lengths >= MIN_ITEMS_TO_SPLIT, np.floor(proportion * lengths), 0)
    users = np.repeat(np.arange(len(lengths)), lengths)
    # Each user's items in random order; the first of them are to be ranked.
    shuffled = np.lexsort((rng.random(pairs.nnz), users))
    places = np.arange(pairs.nnz) - pairs.indptr[users]
    ranked = np.empty(pairs.nnz, bool)
    ranked[shuffled] = places < to_rank[users]
    return HeldOut(_only(pairs, ~ranked), _only(pairs, ranked), user_ids)


def _only(pairs: csr_matrix, chosen: NDArray[np.bool_]) -> csr_matrix:
    """The chosen entries alone as uint8 ones, in a matrix of the same shape."""
    part = csr_matrix((chosen, pairs.indices, pairs.indptr), pairs.shape, np.uint8, copy=True)
    part.eliminate_zeros()
    return part
