"""The checkpoints of a run: which to load or resume, writing a new one, pruning old ones."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import tensorflow.compat.v1 as tf

from vae.cli import as_json, flags_that_affect
from vae.config import Config
from vae.errors import UserError
from vae.load.batches import TrainingBatches
from vae.load.dataset import Dataset
from vae.models import checkpoint
from vae.models.train_state import TrainState
from vae.models.vae import Architecture
from vae.utils.atomic import (
    remove,
    remove_leftovers,
    sync,
    temporary_file,
    temporary_folder,
)
from vae.utils.distributed import Workers, on_rank_0

_REMOVED_PREFIX = ".removing-"
_MEGABYTE = 1 << 20

_ORDER_FLAGS = flags_that_affect(Config, "order")
"""What decides which users a batch holds: it cannot change in the middle of an epoch."""

_TRAINING_FLAGS = (*_ORDER_FLAGS, *flags_that_affect(Config, "training"))
"""What changes the resulting weights, apart from the model's shape and the data."""


class CheckpointManager:
    """The checkpoints of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def at(self, step: int) -> Path:
        """The checkpoint of a step."""
        return checkpoint.path_of(self.path, step)

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return checkpoint.steps_in(self.path)

    def latest(self) -> Path | None:
        """The newest checkpoint, if there is any."""
        steps = self.steps()
        return self.at(steps[-1]) if steps else None

    def best(self) -> Path | None:
        """The checkpoint with the best validation NDCG@100, or the newest before any validation.

        Raises:
            UserError: it is gone, or the newest, which tells its name, is damaged.
        """
        latest = self.latest()
        best_step = checkpoint.read_state(latest).best_step if latest else None
        if best_step is None:
            return latest
        if best_step not in self.steps():
            raise UserError(
                f"{self.at(best_step)}: the best checkpoint is missing; "
                "take the newest with --checkpoint latest."
            )
        return self.at(best_step)

    def prepare(self, checkpoint_bytes: int) -> None:
        """Makes sure, before training, that checkpoints can be written.

        Removes what killed runs left: the folder has to be locked, see ``lock_folder``.

        Raises:
            UserError: the folder cannot be written, or has no room for a checkpoint.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path)
            for leftover in self.path.glob(f"{_REMOVED_PREFIX}*"):
                remove(leftover)
            with temporary_file(self.path / "probe") as probe:
                probe.write_text("Can a file be written here?", encoding="utf-8")
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise UserError(
                f"--checkpoint_dir {self.path}: cannot be written ({error.strerror}); "
                "name another folder."
            ) from None
        if free < checkpoint_bytes:
            raise UserError(
                f"--checkpoint_dir {self.path}: {free / _MEGABYTE:.1f} MiB are free and a "
                f"checkpoint takes {checkpoint_bytes / _MEGABYTE:.1f} MiB; make room or name "
                "another folder.",
                exit_code=1,
            )

    def save(
        self, session: tf.Session, saver: tf.train.Saver, state: TrainState, newest: int
    ) -> None:
        """Writes a checkpoint whole, then removes all but the newest ones and the best.

        Raises:
            UserError: it cannot be written; those before it are as they were.
        """
        target = self.at(state.step)
        try:
            if target.exists():  # written before a validation, whose result the state now holds
                checkpoint.replace_state(target, state)
            else:
                with temporary_folder(target) as temporary:
                    checkpoint.write(temporary, session, saver, state)
                    temporary.rename(target)
                sync(self.path)
            self._remove_old(newest, state.best_step)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"{target}: the checkpoint cannot be written ({_cause(error)}); "
                "earlier ones are intact: mend that, and the same command goes on from the newest.",
                exit_code=1,
            ) from None

    def set_aside(self, after: int) -> Path | None:
        """Moves the checkpoints of later steps into a folder of their own.

        So a run that starts over, or from an older checkpoint, cannot mix with the one before it,
        and nothing is lost.

        Args:
            after: the last step to leave where it is; -1 moves all.

        Returns:
            The folder, or None where there was nothing to move.
        """
        later = [step for step in self.steps() if step > after]
        if not later:
            return None
        target = next(
            path for n in itertools.count(1) if not (path := self.path / f"replaced-{n}").exists()
        )
        target.mkdir()
        # Newest first: wherever this is cut off, the newest of those left is a state of the run.
        for step in reversed(later):
            self.at(step).rename(target / self.at(step).name)
        return target

    def _remove_old(self, newest: int, best_step: int | None) -> None:
        for step in self.steps()[:-newest]:
            if step != best_step:
                # Under this name, half a checkpoint is never taken for a whole one.
                removed = self.path / f"{_REMOVED_PREFIX}{step}"
                self.at(step).rename(removed)
                shutil.rmtree(removed)


def _cause(error: OSError | tf.errors.OpError) -> str:
    """Why a file could not be written; TensorFlow says it at the end of one of many lines."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    lines = [line for line in error.message.splitlines() if "; " in line]
    return lines[-1].rpartition("; ")[2] if lines else type(error).__name__


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        state: how far it has come.
        checkpoint: holds the variables of that state; None for a new run.
        description: human-readable.
        finished: why nothing is left to train; None if something is.
    """

    state: TrainState
    checkpoint: Path | None
    description: str
    finished: str | None = None


def find_start(
    config: Config, architecture: Architecture, dataset: Dataset, workers: Workers
) -> Start:
    """Find where to start; rank 0, which has the checkpoints, decides for all ranks.

    Raises:
        UserError: the checkpoint to resume is missing, damaged, or does not fit the flags or the
            data; or ``--resume`` forbids it. Raised on all ranks.
    """
    return on_rank_0(workers, lambda: _find_start(config, architecture, dataset))


def _find_start(config: Config, architecture: Architecture, dataset: Dataset) -> Start:
    new = TrainState.new(architecture, dataset.fingerprint, as_json(config))
    if config.checkpoint_dir is None:
        return Start(new, None, "No --checkpoint_dir is given: the trained model will not be kept.")
    folder = CheckpointManager(config.checkpoint_dir)
    path = None if config.restart else _checkpoint_to_resume(config.resume, folder)
    if path is None:
        return Start(new, None, "Training a new model.")
    state = checkpoint.verify(path)
    checkpoint.check_match(path, state, architecture, dataset.fingerprint)
    changes = _changes(path, state, config)
    batches = TrainingBatches(dataset.train, config.batch_size_train, config.seed, config.dropout)
    checkpoint.check_progress(path, state, dataset.train.shape[0], batches.steps_per_epoch)
    if state.best_step not in folder.steps():
        state = state.without_best()
    state = dataclasses.replace(state, config=new.config)
    finished = nothing_left(config, state)
    description = f"Resuming {path} ({state.position()}){changes}."
    if finished is not None:
        description += f"\nNothing to do: {finished}."
    return Start(state, path, description, finished)


def nothing_left(config: Config, state: TrainState) -> str | None:
    """Return why a run in this state is over; None if it is not."""
    if state.validation_is_due:
        return None
    if state.epoch >= config.epochs:
        return f"{_plural(state.epoch, 'epoch')} completed"
    if config.early_stop and state.validations_since_best >= config.early_stop:
        return (
            "early stopping: no improvement in NDCG@100 for "
            f"{_plural(state.validations_since_best, 'validation')}"
        )
    return None


def _checkpoint_to_resume(resume: str, folder: CheckpointManager) -> Path | None:
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


def _changes(path: Path, state: TrainState, config: Config) -> str:
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


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
