"""A split that somebody else published, as it is: the files of Liang et al.'s notebook.

``train``, and for validation and test the fold-in items (``_tr``) and the targets (``_te``), with
any suffix and in any format of ratings. Rows and columns of the matrices: users in the order of
the files, and the items of the training by ascending id, so that a split that this program made,
written out as such files, comes back as it was.

Raises:
    UserError: a file is missing, or the files are not a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.errors import UserError
from vae.load.dataset import HeldOut, Split, ones_at
from vae.load.reading.files import reading
from vae.load.reading.interactions import Interactions
from vae.load.split import read_counts

_PARTS = ("train", "validation_tr", "validation_te", "test_tr", "test_te")


def find_parts(folder: Path) -> list[Path]:
    """Return the file, or folder of files, of each part of a split."""
    with reading(folder):
        names = sorted(path.name for path in folder.iterdir())
    parts = []
    for part in _PARTS:
        found = [name for name in names if name.partition(".")[0] == part]
        if len(found) != 1:
            problem = f"{len(found)} files of the part {part} ({', '.join(found)}); keep one"
            problem = problem if found else f"no file of the part {part}, such as {part}.csv"
            raise UserError(f"--split_dir {folder}: has {problem}.")
        parts.append(folder / found[0])
    return parts


def published_split(interactions: Interactions, folder: Path) -> Split:
    """Return the split in a folder, whose interactions come one part after another."""
    paths = find_parts(folder)
    files = interactions.counts.items()
    counts = [sum(n for file, n in files if path in (file, *file.parents)) for path in paths]
    ends = np.cumsum(counts)
    parts = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    _check_users(interactions, parts, paths)
    train, user_ids = _matrices(interactions, parts[:1])
    seen = np.flatnonzero(train[0].getnnz(axis=0))
    held, dropped = [], 0
    for start in (1, 3):
        matrices, ids = _matrices(interactions, parts[start : start + 2])
        for user, item in np.argwhere(matrices[0].multiply(matrices[1]))[:1]:
            raise UserError(
                f"{paths[start + 1]}: item {interactions.items.values[item]} of user {ids[user]} "
                f"is in {paths[start].name} too; an item folds in or is a target."
            )
        fold_in, targets = (matrix[:, seen] for matrix in matrices)
        dropped += sum(matrix.nnz for matrix in matrices) - fold_in.nnz - targets.nnz
        held.append(HeldOut(fold_in, targets, ids))
    split = Split(train[0][:, seen], user_ids, interactions.items.values[seen], held[0], held[1])
    users = {"users": len(split.all_user_ids()), "heldout_users": len(held[1].user_ids)}
    sizes = {"heldout_interactions_dropped": dropped, **users, **split.sizes()}
    _check_parts(sizes, folder)
    distinct = dropped + split.all_histories().nnz
    return replace(split, counts=read_counts(interactions, distinct) | sizes)


def _matrices(
    interactions: Interactions, parts: Sequence[slice]
) -> tuple[list[csr_matrix], NDArray[np.generic]]:
    """Return a (users, all items) matrix of each part, and the raw ids of the users of them all."""
    users, items = interactions.users, interactions.items
    codes = pd.unique(np.concatenate([users.codes[part] for part in parts]))
    row_of = np.zeros(len(users.values), np.int64)
    row_of[codes] = np.arange(len(codes))
    shape = (len(codes), len(items.values))
    matrices = [ones_at(row_of[users.codes[part]], items.codes[part], shape) for part in parts]
    return matrices, users.values[codes]


def _check_users(interactions: Interactions, parts: Sequence[slice], paths: Sequence[Path]) -> None:
    """Refuse a user of two of training, validation and test."""
    codes, ids = interactions.users.codes, interactions.users.values
    for one, other in combinations(range(len(_PARTS)), 2):
        if _PARTS[one].partition("_")[0] != _PARTS[other].partition("_")[0]:
            both = np.intersect1d(codes[parts[one]], codes[parts[other]])
            if len(both):
                raise UserError(
                    f"{paths[other]}: user {ids[both[0]]} is in "
                    f"{paths[one].name} too; training, validation and test need distinct users."
                )


def _check_parts(sizes: Mapping[str, int], folder: Path) -> None:
    """Refuse held-out users without an item or a target: no metric would be of use."""
    for name in ("validation", "test"):
        for kind, part, size in (("item", "_tr", "fold_in"), ("target", "_te", "target")):
            if sizes[f"{name}_{size}_interactions"] == 0:
                raise UserError(
                    f"--split_dir {folder}: no {kind} of {name}{part} is an item of train; check "
                    "that all files have the same ids."
                )
