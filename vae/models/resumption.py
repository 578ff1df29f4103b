"""Where training starts: anew, or from a checkpoint, as ``--resume`` and ``--restart`` say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from vae.cli import as_json
from vae.config import Config
from vae.errors import UserError
from vae.load import Dataset, TrainingBatches
from vae.models import checkpoint
from vae.models.checkpoint_manager import CheckpointFolder
from vae.models.run_state import RunState
from vae.models.vae import Architecture

_ORDER_FLAGS = ("batch_size_train", "seed")
"""What decides which users a batch holds: it cannot change in the middle of an epoch."""

_TRAINING_FLAGS = (
    *_ORDER_FLAGS,
    "lr",
    "beta1",
    "beta2",
    "dropout",
    "total_anneal_steps",
    "anneal_cap",
    "lam",
    "validation_step",
    "amp",
    "no_tf32",
    "fp16_allreduce",
    "xla",
)
"""What changes the weights that come out, the model's shape and the data aside."""


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        state: how far it has come.
        checkpoint: holds the variables of that state; None for a new run.
        description: for people.
    """

    state: RunState
    checkpoint: Path | None
    description: str


def find_start(config: Config, architecture: Architecture, dataset: Dataset) -> Start:
    """The start that the flags ask for; only rank 0, who has the checkpoints, should call this.

    Raises:
        UserError: the checkpoint to start from is missing, damaged, or does not fit the flags or
            the data; or ``--resume`` forbids what the folder asks for.
    """
    new = RunState.new(architecture, dataset.digest, as_json(config))
    if config.checkpoint_dir is None:
        return Start(new, None, "No --checkpoint_dir is given: the trained model will not be kept.")
    folder = CheckpointFolder(config.checkpoint_dir)
    path = None if config.restart else _checkpoint_to_resume(config.resume, folder)
    if path is None:
        return Start(new, None, "Training a new model.")
    state = checkpoint.verify(path)
    checkpoint.check_match(path, state, architecture, dataset.digest)
    changes = _changes(path, state, config)
    batches = TrainingBatches(dataset.train, config.batch_size_train, config.seed, config.dropout)
    checkpoint.check_progress(path, state, dataset.train.shape[0], batches.steps_per_epoch)
    if state.best_step not in folder.steps():
        state = state.without_best()
    state = dataclasses.replace(state, config=new.config)
    return Start(state, path, f"Resuming {path} ({state.position()}){changes}.")


def nothing_left(config: Config, state: RunState) -> str | None:
    """Why a run in this state is over; None if it is not."""
    if state.validation_is_due:
        return None
    if state.epoch >= config.epochs:
        return f"{state.epoch} epochs are trained"
    if config.early_stop and state.validations_since_best >= config.early_stop:
        return f"{state.validations_since_best} validations brought no better NDCG@100"
    return None


def _checkpoint_to_resume(resume: str, folder: CheckpointFolder) -> Path | None:
    """The checkpoint that ``--resume`` stands for, None for a new run."""
    if resume not in ("auto", "never", "must"):
        path = Path(resume)
        if not (path / checkpoint.STATE_FILE).is_file():
            raise UserError(
                f"--resume {path}: there is no such checkpoint; name a folder step-..., "
                "or give auto, never or must."
            )
        return path
    latest = folder.latest()
    if latest is not None and resume == "never":
        raise UserError(
            f"--resume never: {folder.path} is in use, it holds {latest.name}; "
            "name another --checkpoint_dir, or start over there with --restart."
        )
    if latest is None and resume == "must":
        raise UserError(
            f"--resume must: {folder.path} holds no checkpoint; "
            "name the folder that was trained into."
        )
    return latest


def _changes(path: Path, state: RunState, config: Config) -> str:
    """A phrase on the flags that will train otherwise than before; empty if there are none.

    Raises:
        UserError: an epoch that has begun would be finished on other batches.
    """
    before, now = state.config, as_json(config)
    changed = [name for name in _TRAINING_FLAGS if before.get(name) != now[name]]
    fixed = [f"--{name} {before.get(name)}" for name in _ORDER_FLAGS if name in changed]
    if state.batch and fixed:
        raise UserError(
            f"{path}: was saved in the middle of an epoch with {' and '.join(fixed)}, which cannot "
            "change before the epoch's end; give the same, or start over with --restart."
        )
    return "".join(
        f", from here on with --{name} {now[name]} instead of {before.get(name)}"
        for name in changed
    )
