"""Where training starts: from scratch, or from the checkpoint that ``--resume`` selects.

Rank 0 has the checkpoints, so it decides for all ranks.

Raises:
    UserError: a checkpoint is missing, damaged, or does not fit the flags or the data.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae.cli import defaults, flags_that_affect
from vae.config import MODEL_FLAGS, Checkpoints, Config
from vae.errors import UserError
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.train_state import TrainState, plural
from vae.models.checkpoints.warm_start import read_warm_start

_NOT_SAVED = "No --checkpoint_dir: the trained model is discarded at the end."

_RESUME_MODES = ("auto", "never", "must")
"""Values of ``--resume`` other than a path."""

_DEFAULTS = defaults(Config)
"""Of flags that are newer than a checkpoint."""

_ORDER_FLAGS = flags_that_affect(Config, "order")
"""Flags that select the users of each batch; they cannot change within an epoch."""

_TRAINING_FLAGS = (*_ORDER_FLAGS, *flags_that_affect(Config, "training"))
"""Flags that change the resulting weights, apart from the architecture and the data."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a run starts.

    Attributes:
        checkpoint: checkpoint with the variables of the state; None for a new run.
        finished: why there is nothing left to train; None if there is.
    """

    state: TrainState
    checkpoint: Path | None
    description: str
    finished: str | None = None

    def last_step_in(self, folder: Path) -> int:
        """Return the last step of this run in a folder, -1 if there is none: later ones go."""
        source = self.checkpoint
        is_there = source is not None and folder.exists() and source.parent.samefile(folder)
        return self.state.step if is_there else -1


def flags_of_checkpoint(
    checkpoint_dir: Path | None, options: Checkpoints, takes_blend: bool
) -> dict[str, Any]:
    """Return the flags of the model that a run goes on with, which need not be repeated.

    A new run has the layers of the model of ``--warm_start``, and not its blend. ``takes_blend``:
    whether ``--blend`` is one of these flags.
    """
    own = None if options.restart else checkpoint_dir
    if options.resume not in _RESUME_MODES:
        own = Path(options.resume)
    for path, takes in ((own, takes_blend), (options.warm_start, False)):
        if path is not None:
            folder = CheckpointManager(path)
            if flags := folder.read_again_if_pruned(partial(_flags_in, folder, takes)):
                return flags
    return {}


def _flags_in(folder: CheckpointManager, takes_blend: bool) -> dict[str, Any]:
    latest = folder.latest()
    if latest is None:
        return {}
    state = checkpoint.read_state(latest)
    known = _DEFAULTS | state.config | asdict(state.architecture)
    flags = {name: known[name] for name in MODEL_FLAGS}
    best = [folder.at(step) for step in folder.steps() if step == state.best_step]
    if takes_blend and any(each.blend for each in (state, *map(checkpoint.read_state, best))):
        flags["blend"] = "ease"
    return flags


def find_resume_point(
    new: TrainState,
    item_ids: NDArray[np.generic],
    checkpoint_dir: Path | None,
    options: Checkpoints,
    epochs: int,
    early_stop: int,
    earlier: Collection[str] = (),
) -> ResumePoint:
    """Find where to start a run whose state would be ``new``, on data with these (I,) raw ids.

    The ``earlier`` fingerprints are those of the data before they grew.
    """
    folder = None if checkpoint_dir is None else CheckpointManager(checkpoint_dir)
    found = None
    if folder is not None:
        found = folder.read_again_if_pruned(partial(_checkpoint_to_resume, folder, options))
    if folder is None or found is None:
        if options.warm_start is not None:
            counts = read_warm_start(
                options.warm_start, new.architecture, item_ids, lambda source: source.counts
            )
            new = replace(new, summary=dict(counts))
        return ResumePoint(new, None, _NOT_SAVED if folder is None else "Training a new model.")
    path, state = found
    checkpoint.check_match(path, state, new.architecture, new.dataset_fingerprint, earlier)
    changes = _changes(path, state, new.config)
    if state.best_step not in folder.steps():  # the best checkpoint is missing
        state = replace(state, best_ndcg=None, best_step=None, validations_since_best=0)
    state = replace(state, config=new.config, blend=None)
    finished = reason_finished(state, epochs, early_stop)
    description = f"Resuming {path} at {state.position()}{changes}."
    if finished is not None:
        description += f"\nNothing to do: {finished}."
    return ResumePoint(state, path, description, finished)


def reason_finished(state: TrainState, epochs: int, early_stop: int) -> str | None:
    """Return why a run is finished; None if it is not. An ``early_stop`` of 0 is never."""
    if state.validation_is_due:
        return None
    if state.epoch >= epochs:
        return f"{plural(state.epoch, 'epoch')} completed"
    if early_stop and state.validations_since_best >= early_stop:
        return (
            "early stopping: no improvement in NDCG@100 for "
            f"{plural(state.validations_since_best, 'validation')}"
        )
    return None


def _checkpoint_to_resume(
    folder: CheckpointManager, options: Checkpoints
) -> tuple[Path, TrainState] | None:
    """Return the checkpoint that the flags select and its state; None for a new run."""
    if checkpoint.is_checkpoint(folder.path):
        raise UserError(
            f"--checkpoint_dir {folder.path}: is itself a checkpoint; pass the folder to save to, "
            f"and --resume {folder.path} to resume from this one."
        )
    if options.restart:
        return None
    path, resume = folder.latest(), options.resume
    if resume not in _RESUME_MODES:
        path = Path(resume)
        if not checkpoint.is_checkpoint(path):
            raise UserError(
                f"--resume {resume}: checkpoint not found; pass the path of a folder step-..., "
                "or auto, never or must."
            )
    elif path is not None and resume == "never":
        raise UserError(
            f"--resume never: {folder.path} already holds {path.name}; "
            "name another --checkpoint_dir, or start over with --restart."
        )
    elif path is None and resume == "must":
        raise UserError(
            f"--resume must: {folder.path} holds no checkpoint; "
            "name the --checkpoint_dir of the earlier run."
        )
    return None if path is None else (path, checkpoint.verify(path))


def _changes(path: Path, state: TrainState, now: dict[str, Any]) -> str:
    """Describe the training flags that differ from those of the checkpoint; empty if none do."""
    before = _DEFAULTS | state.config
    changed = [name for name in _TRAINING_FLAGS if before[name] != now[name]]
    fixed = [f"--{name} {before[name]}" for name in _ORDER_FLAGS if name in changed]
    if state.batch and fixed:
        raise UserError(
            f"{path}: saved within an epoch with {' and '.join(fixed)}, which cannot change before "
            "the epoch ends; pass the same, or start over with --restart."
        )
    return "".join(f"; --{name} changed from {before[name]} to {now[name]}" for name in changed)
