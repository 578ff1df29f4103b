"""``--warm_start``: a new run that starts from the weights of a model of other items.

Raises:
    UserError: there is no checkpoint, it is damaged, has other layers, or no item in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import Architecture
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.load.ids import find_ids
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.manager import CheckpointManager, Result
from vae.models.graph.item_shard import item_axis


@dataclass(frozen=True)
class WarmStart:
    """The items that the model of a checkpoint and a new data set have in common.

    Attributes:
        checkpoint: verified checkpoint.
        source_indices: (N,) int64 item indices of the common items in the checkpoint.
        target_indices: (N,) int64 item indices of the same items in the data set.
        counts: numbers of common, new and removed items, by their log keys.
        fingerprint: that of the data that the checkpoint was trained on.
    """

    checkpoint: Path
    source_indices: NDArray[np.int64]
    target_indices: NDArray[np.int64]
    counts: dict[str, int]
    fingerprint: str

    @classmethod
    def of(
        cls, folder: CheckpointManager, architecture: Architecture, item_ids: NDArray[np.generic]
    ) -> WarmStart:
        """Compare the items of the best checkpoint with (I,) raw ids."""
        path = folder.best()
        if path is None:
            raise UserError(
                f"--warm_start {folder.path}: holds no checkpoint; pass the path of a folder "
                "step-... or of a --checkpoint_dir."
            )
        state = checkpoint.verify(path)
        layers = replace(architecture, items=state.architecture.items)  # items and data may differ
        if differences := state.differences(layers, state.dataset_fingerprint):
            raise UserError(
                f"--warm_start {path}: has other layers ({'; '.join(differences)}); leave these "
                "flags out."
            )
        source_ids = checkpoint.read_item_ids(path)
        found = find_ids(source_ids, item_ids)
        source_indices = np.flatnonzero(found >= 0)
        common = len(source_indices)
        if not common:
            raise UserError(
                f"--warm_start {path}: none of its items is in the data set; the ids in the "
                f"checkpoint are such as {source_ids[0]}, now such as {item_ids[0]}."
            )
        counts = {
            "warm_start_items": common,
            "warm_start_new_items": len(item_ids) - common,
            "warm_start_gone_items": len(source_ids) - common,
        }
        target_indices = found[source_indices]
        return cls(path, source_indices, target_indices, counts, state.dataset_fingerprint)

    def load(self, session: tf.Session, variables: Iterable[tf.Variable], data: Dataset) -> str:
        """Take over the variables of the checkpoint, with Adam's slots and the global step.

        A variable that the checkpoint does not have, such as the loss scale of ``--amp``, keeps its
        initial value, and so do the new items. Returns what is taken over, human-readable.
        """
        values = checkpoint.read_variables(self.checkpoint)
        for variable in variables:
            name = variable.op.name
            if name not in values:
                continue
            value, axis = values[name], item_axis(name)
            if axis is not None:
                common = np.moveaxis(value, axis, 0)[self.source_indices]
                value = session.run(variable).copy()
                np.moveaxis(value, axis, 0)[self.target_indices] = common
            variable.load(value, session)
        common_items, new_items, removed_items = self.counts.values()
        if self.fingerprint in data.grew_from:
            new = data.train.nnz - data.grew_from[self.fingerprint]
            return (
                f"Warm start from {self.checkpoint}, whose data have grown since: all "
                f"{common_items:,} items keep their indices, {new_items:,} new items start from "
                f"random weights; {new:,} new training interactions are "
                f"{new / data.train.nnz:.2f} epochs' worth."
            )
        return (
            f"Warm start from {self.checkpoint}: takes over the weights of {common_items:,} items; "
            f"{new_items:,} new items start from random weights, and {removed_items:,} items of "
            "the checkpoint are no longer there."
        )


def read_warm_start(
    source: Path,
    architecture: Architecture,
    item_ids: NDArray[np.generic],
    read: Callable[[WarmStart], Result],
) -> Result:
    """Return what a function reads from a checkpoint, or the best of a folder, to start from.

    ``read`` is called again if a training removes the checkpoint meanwhile. The architecture and
    the (I,) raw ids are those of the new model.
    """
    folder = CheckpointManager(source)
    return folder.read_again_if_pruned(lambda: read(WarmStart.of(folder, architecture, item_ids)))
