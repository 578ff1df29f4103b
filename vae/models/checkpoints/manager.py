"""The checkpoints of a run: which one to load or resume from, saving and pruning."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.cli import as_json, defaults, flags_that_affect
from vae.config import MODEL_FLAGS, Architecture, Config
from vae.errors import UserError
from vae.load.batches import TrainingBatches
from vae.load.dataset import Dataset
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.train_state import TrainState, plural
from vae.models.checkpoints.warm_start import WarmStart
from vae.utils.atomic import remove_leftovers, sync, temporary_folder
from vae.utils.distributed import Workers, on_rank_0
from vae.utils.outputs import make_folder, write_error

Result = TypeVar("Result")

_RESUME_MODES = ("auto", "never", "must")
"""Values of ``--resume`` other than a path."""

_REMOVED_PREFIX = ".removing-"
_MAX_READS = 20
"""Attempts to read a checkpoint of a folder from which a training removes them."""

_MEGABYTE = 1 << 20

_ORDER_FLAGS = flags_that_affect(Config, "order")
"""Flags that select the users of each batch; they cannot change within an epoch."""

_TRAINING_FLAGS = (*_ORDER_FLAGS, *flags_that_affect(Config, "training"))
"""Flags that change the resulting weights, apart from the architecture and the data."""


class CheckpointManager:
    """The folder of a run's checkpoints, or a single checkpoint to read.

    Args:
        path: folder; it need not exist before :meth:`prepare`.
        item_ids: (I,) raw ids, which :meth:`save` writes into each checkpoint; None to read only.
    """

    def __init__(self, path: Path, item_ids: NDArray[np.generic] | None = None) -> None:
        self.path = path
        self._item_ids = item_ids

    def at(self, step: int) -> Path:
        """Return the path of the checkpoint of a step."""
        return checkpoint.path_of(self.path, step)

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return checkpoint.steps_in(self.path)

    def latest(self) -> Path | None:
        """Return the latest checkpoint, if there is any."""
        if checkpoint.is_checkpoint(self.path):
            return self.path
        steps = self.steps()
        return self.at(steps[-1]) if steps else None

    def best(self) -> Path | None:
        """Return the checkpoint with the best validation NDCG@100.

        Before the first validation that is the latest one; None if there is none.

        Raises:
            UserError: the best checkpoint is missing, or the latest, which names it, is damaged.
        """
        latest = self.latest()
        best_step = checkpoint.read_state(latest).best_step if latest else None
        if best_step is None or latest == self.path:
            return latest
        if best_step not in self.steps():
            raise UserError(
                f"{self.at(best_step)}: the best checkpoint is missing; "
                "use the latest with --checkpoint latest."
            )
        return self.at(best_step)

    def load_checkpoint(
        self, which: Literal["best", "latest"] | Path, architecture: Architecture, dataset: Dataset
    ) -> tuple[Path, TrainState] | None:
        """Find a checkpoint to resume from or to use, and verify it.

        Args:
            which: the best or the latest of this folder, or the path of any checkpoint.
            architecture: of the model to load it into.
            dataset: prepared data that it must have been trained on.

        Returns:
            Its path and its state; None if the folder holds no checkpoint.

        Raises:
            UserError: the checkpoint is missing, damaged, or of another model or other data.
        """
        if isinstance(which, Path):
            path: Path | None = which
        else:
            path = self.best() if which == "best" else self.latest()
        if path is None:
            return None
        state = checkpoint.verify(path)
        checkpoint.check_match(path, state, architecture, dataset.fingerprint)
        return path, state

    def read_again_if_pruned(self, read: Callable[[], Result]) -> Result:
        """Return what a function reads from this folder, to which a training may write.

        Readers take no lock, so a training can remove the checkpoint that they read. The function
        is called again if it failed and there are other checkpoints than before.

        Raises:
            UserError: the function raised it, and the checkpoints are those of before; or they
                changed in every attempt.
        """
        for _ in range(_MAX_READS):
            before = self.steps()
            try:
                return read()
            except UserError:
                if self.steps() == before:
                    raise
        raise UserError(
            f"--checkpoint_dir {self.path}: a training removed the checkpoint in each of "
            f"{_MAX_READS} attempts to read it; wait for the end of that training, or start it "
            "with a higher --keep_checkpoints.",
            exit_code=1,
        )

    def prepare(self, checkpoint_bytes: int) -> None:
        """Check, before training, that checkpoints can be written.

        Leftovers of killed runs are removed, so the folder must be locked: see ``lock_folder``.

        Args:
            checkpoint_bytes: size of one checkpoint.

        Raises:
            UserError: the folder cannot be written, or has no space for a checkpoint.
        """
        make_folder(self.path, "--checkpoint_dir")
        try:
            remove_leftovers(self.path)
            for leftover in self.path.glob(f"{_REMOVED_PREFIX}*"):
                shutil.rmtree(leftover)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise write_error(
                f"--checkpoint_dir {self.path}", error, "; name another folder", exit_code=2
            ) from None
        if free < checkpoint_bytes:
            raise UserError(
                f"--checkpoint_dir {self.path}: {free / _MEGABYTE:.1f} MiB are free and a "
                f"checkpoint takes {checkpoint_bytes / _MEGABYTE:.1f} MiB; free some space or name "
                "another folder.",
                exit_code=1,
            )

    def save(
        self, session: tf.Session, saver: tf.train.Saver, state: TrainState, keep: int
    ) -> None:
        """Write a checkpoint atomically, then remove all but the latest ones and the best.

        Args:
            session: holds the variables.
            saver: of all variables.
            state: of the run.
            keep: number of latest checkpoints to keep.

        Raises:
            UserError: the checkpoint cannot be written; earlier ones are intact.
        """
        target = self.at(state.step)
        try:
            if target.exists():  # saved before a validation, whose result the state now holds
                checkpoint.replace_state(target, state)
            else:
                with temporary_folder(target) as temporary:
                    checkpoint.write(temporary, session, saver, state, self._item_ids)
                    temporary.rename(target)
                sync(self.path)
            self._remove_old(keep, state.best_step)
        except (OSError, tf.errors.OpError) as error:
            fix = "; earlier checkpoints are intact: fix this and rerun the same command to resume"
            raise write_error(str(target), _cause(error), fix) from None

    def set_aside(self, after: int) -> Path | None:
        """Move the checkpoints of later steps to a new subfolder ``replaced-N``.

        A run that starts over, or resumes from an earlier checkpoint, cannot mix with the previous
        run, whose checkpoints are not lost.

        Args:
            after: the last step that stays; -1 moves all.

        Returns:
            The subfolder; None if there was nothing to move.
        """
        later = [step for step in self.steps() if step > after]
        if not later:
            return None
        target = next(
            path for n in itertools.count(1) if not (path := self.path / f"replaced-{n}").exists()
        )
        target.mkdir()
        # Latest first: wherever this is interrupted, the latest of those left is a valid state.
        for step in reversed(later):
            self.at(step).rename(target / self.at(step).name)
        return target

    def _remove_old(self, keep: int, best_step: int | None) -> None:
        for step in self.steps()[:-keep]:
            if step != best_step:
                # Under this name, a partly removed checkpoint is never taken for a complete one.
                removed = self.path / f"{_REMOVED_PREFIX}{step}"
                self.at(step).rename(removed)
                shutil.rmtree(removed)


def _cause(error: OSError | tf.errors.OpError) -> str:
    """Return why a file could not be written; TensorFlow says it at the end of one of its lines."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    lines = [line for line in error.message.splitlines() if "; " in line]
    return lines[-1].rpartition("; ")[2] if lines else type(error).__name__


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        state: state of the run.
        checkpoint: checkpoint with the variables of that state; None for a new run.
        description: human-readable.
        finished: why there is nothing left to train; None if there is.
    """

    state: TrainState
    checkpoint: Path | None
    description: str
    finished: str | None = None


def flags_of_checkpoint(config: Config) -> dict[str, Any]:
    """Return the flags of the model that a run goes on with, which need not be repeated.

    A new run has the layers of the model of ``--warm_start``, and not its blend.

    Raises:
        UserError: the state of the checkpoint is damaged.
    """
    if config.modes.train and config.checkpoints.resume not in _RESUME_MODES:
        return _flags_in(CheckpointManager(Path(config.checkpoints.resume)), config.uses_blend)
    own = None if config.checkpoints.restart else config.files.checkpoint_dir
    for path, takes_blend in ((own, config.uses_blend), (config.checkpoints.warm_start, False)):
        if path is not None and (folder := CheckpointManager(path)).latest() is not None:
            return folder.read_again_if_pruned(partial(_flags_in, folder, takes_blend))
    return {}


def _flags_in(folder: CheckpointManager, takes_blend: bool) -> dict[str, Any]:
    latest = folder.latest()
    if latest is None:
        return {}
    state = checkpoint.read_state(latest)
    known = state.config | state.architecture
    # The flags of an earlier version did not have all of them.
    flags = {name: known[name] for name in MODEL_FLAGS if name in known}
    states = [state]
    if state.best_step in folder.steps():
        states.append(checkpoint.read_state(folder.at(state.best_step)))
    if takes_blend and any(one.blend is not None for one in states):
        flags["blend"] = "ease"
    return flags


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
    if config.files.checkpoint_dir is None:
        note = "No --checkpoint_dir: the trained model is discarded at the end."
        return _new_run(config, architecture, dataset, new, note)
    if checkpoint.is_checkpoint(config.files.checkpoint_dir):
        raise UserError(
            f"--checkpoint_dir {config.files.checkpoint_dir}: is itself a checkpoint; pass the "
            f"folder to save to, and --resume {config.files.checkpoint_dir} to resume from this "
            "one."
        )
    folder = CheckpointManager(config.files.checkpoint_dir)
    which = (
        None
        if config.checkpoints.restart
        else _checkpoint_to_resume(config.checkpoints.resume, folder)
    )
    if which is None:
        return _new_run(config, architecture, dataset, new)
    found = folder.read_again_if_pruned(
        lambda: folder.load_checkpoint(which, architecture, dataset)
    )
    if found is None:
        return _new_run(config, architecture, dataset, new)
    path, state = found
    changes = _changes(path, state, config)
    batches = TrainingBatches(
        dataset.train,
        config.training.batch_size_train,
        config.execution.seed,
        config.objective.dropout,
    )
    checkpoint.check_progress(path, state, dataset.train.shape[0], batches.steps_per_epoch)
    if state.best_step not in folder.steps():
        state = state.without_best()
    state = dataclasses.replace(state, config=new.config, blend=None)
    finished = nothing_left(config, state)
    description = f"Resuming {path} at {state.position()}{changes}."
    if finished is not None:
        description += f"\nNothing to do: {finished}."
    return Start(state, path, description, finished)


def _new_run(
    config: Config,
    architecture: Architecture,
    dataset: Dataset,
    state: TrainState,
    note: str = "Training a new model.",
) -> Start:
    """Return the start of a new run, from random weights or from those of ``--warm_start``."""
    if config.checkpoints.warm_start is not None:
        counts = read_warm_start(
            config.checkpoints.warm_start,
            architecture,
            dataset.item_ids,
            lambda warm_start: warm_start.counts,
        )
        state = dataclasses.replace(state, summary=dict(counts))
    return Start(state, None, note)


def read_warm_start(
    source: Path,
    architecture: Architecture,
    item_ids: NDArray[np.generic],
    read: Callable[[WarmStart], Result],
) -> Result:
    """Return what a function reads from the checkpoint that ``--warm_start`` names.

    Raises:
        UserError: there is none, or it cannot be a start for this model and these items.
    """
    folder = CheckpointManager(source)

    def read_once() -> Result:
        path = folder.best()
        if path is None:
            raise UserError(
                f"--warm_start {source}: holds no checkpoint; pass the path of a folder step-... "
                "or of a --checkpoint_dir."
            )
        return read(WarmStart.of(path, architecture, item_ids))

    return folder.read_again_if_pruned(read_once)


def nothing_left(config: Config, state: TrainState) -> str | None:
    """Return why a run in this state is finished; None if it is not."""
    if state.validation_is_due:
        return None
    if state.epoch >= config.training.epochs:
        return f"{plural(state.epoch, 'epoch')} completed"
    if config.training.early_stop and state.validations_since_best >= config.training.early_stop:
        return (
            "early stopping: no improvement in NDCG@100 for "
            f"{plural(state.validations_since_best, 'validation')}"
        )
    return None


def _checkpoint_to_resume(
    resume: str, folder: CheckpointManager
) -> Literal["latest"] | Path | None:
    """Return which checkpoint ``--resume`` selects; None for a new run.

    Raises:
        UserError: ``--resume`` names a missing checkpoint, or contradicts what the folder holds.
    """
    if resume not in _RESUME_MODES:
        if not checkpoint.is_checkpoint(Path(resume)):
            raise UserError(
                f"--resume {resume}: checkpoint not found; pass the path of a folder step-..., "
                "or auto, never or must."
            )
        return Path(resume)
    latest = folder.latest()
    if latest is not None and resume == "never":
        raise UserError(
            f"--resume never: {folder.path} already holds {latest.name}; "
            "name another --checkpoint_dir, or start over with --restart."
        )
    if latest is None and resume == "must":
        raise UserError(
            f"--resume must: {folder.path} holds no checkpoint; "
            "name the --checkpoint_dir of the earlier run."
        )
    return "latest" if latest is not None else None


def _changes(path: Path, state: TrainState, config: Config) -> str:
    """Describe the training flags that differ from those of the checkpoint; empty if none do.

    Raises:
        UserError: the rest of an epoch would be trained on other batches.
    """
    # A flag that an earlier version did not have has its default.
    before, now = defaults(Config) | state.config, as_json(config)
    changed = [name for name in _TRAINING_FLAGS if before[name] != now[name]]
    fixed = [f"--{name} {before[name]}" for name in _ORDER_FLAGS if name in changed]
    if state.batch and fixed:
        raise UserError(
            f"{path}: saved within an epoch with {' and '.join(fixed)}, which cannot change before "
            "the epoch ends; pass the same, or start over with --restart."
        )
    return "".join(f"; --{name} changed from {before[name]} to {now[name]}" for name in changed)
