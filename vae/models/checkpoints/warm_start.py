"""``--warm_start``: a new run that starts from the weights of a model of other items."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.errors import UserError
from vae.load.ids import find_ids
from vae.models.checkpoints import checkpoint
from vae.models.graph.vae import Architecture

_ITEM_AXES = {"encoder/hidden/kernel": 0, "decoder/items/kernel": 1, "decoder/items/bias": 0}
"""The axis of the items, by the name of the variable."""


@dataclass(frozen=True)
class WarmStart:
    """The items that the model of a checkpoint and a new data set have in common.

    Attributes:
        checkpoint: verified checkpoint.
        theirs: (N,) int64 item indices of the common items in the checkpoint.
        ours: (N,) int64 item indices of the same items in the data set.
        new_items: number of items of the data set that the checkpoint does not have.
        gone_items: number of items of the checkpoint that the data set does not have.
    """

    checkpoint: Path
    theirs: NDArray[np.int64]
    ours: NDArray[np.int64]
    new_items: int
    gone_items: int

    @classmethod
    def of(cls, path: Path, architecture: Architecture, item_ids: NDArray[np.generic]) -> WarmStart:
        """Compare the items by their raw ids.

        Args:
            path: checkpoint.
            architecture: of the new model.
            item_ids: (I,) raw ids of the data set.

        Raises:
            UserError: the checkpoint is damaged, has other layers, or no item in common.
        """
        state = checkpoint.verify(path)
        differences = checkpoint.architecture_differences(state, architecture, ignore="items")
        if differences:
            raise UserError(
                f"--warm_start {path}: has other layers ({'; '.join(differences)}); leave these "
                "flags out."
            )
        their_ids = checkpoint.read_item_ids(path)
        if their_ids is None:
            raise UserError(
                f"--warm_start {path}: holds no item ids, because an earlier version wrote it; "
                "train it again, or start without it."
            )
        found = find_ids(their_ids, item_ids)
        theirs = np.flatnonzero(found >= 0)
        if not len(theirs):
            raise UserError(
                f"--warm_start {path}: none of its items is in the data set; the ids there are "
                f"such as {their_ids[0]} and here such as {item_ids[0]}."
            )
        new, gone = len(item_ids) - len(theirs), len(their_ids) - len(theirs)
        return cls(path, theirs, found[theirs], new, gone)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of items by their log keys."""
        return {
            "warm_start_items": len(self.ours),
            "warm_start_new_items": self.new_items,
            "warm_start_gone_items": self.gone_items,
        }

    def load(self, session: tf.Session, variables: Iterable[tf.Variable]) -> str:
        """Take over the variables of the checkpoint, with Adam's slots and the global step.

        A variable that the checkpoint does not have, such as the loss scale of ``--amp``, keeps its
        value.

        Args:
            session: holds initialised variables.
            variables: of the training graph.

        Returns:
            What is taken over, human-readable.

        Raises:
            UserError: the checkpoint cannot be read.
        """
        values = checkpoint.read_variables(self.checkpoint)
        for variable in variables:
            name = variable.op.name
            if name in values:
                axis = _item_axis(name)
                taken = values[name]
                if axis is not None:
                    taken = self._merge(session.run(variable), taken, axis)
                variable.load(taken, session)
        return (
            f"Warm start from {self.checkpoint}: takes over the weights of {len(self.ours):,} "
            f"items; {self.new_items:,} new items start from random weights, and "
            f"{self.gone_items:,} items of the checkpoint are no longer there."
        )

    def _merge(self, ours: NDArray[Any], theirs: NDArray[Any], axis: int) -> NDArray[Any]:
        """Return the values of this model with those of the common items replaced."""
        merged = ours.copy()
        here, there = ((slice(None),) * axis + (index,) for index in (self.ours, self.theirs))
        merged[here] = theirs[there]
        return merged


def _item_axis(name: str) -> int | None:
    """Return the axis of the items of a variable, of its copy in the prior, and of its slots."""
    layer = name.removeprefix("prior/")
    axes = (axis for start, axis in _ITEM_AXES.items() if layer.startswith(start))
    return next(axes, None)
