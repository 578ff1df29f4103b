"""The folder of a run's checkpoints: which there are, writing a new one, removing old ones."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import tensorflow.compat.v1 as tf

from vae.errors import UserError
from vae.models import checkpoint
from vae.models.run_state import RunState
from vae.utils.atomic import (
    remove,
    remove_leftovers,
    sync,
    temporary_file,
    temporary_folder,
)

_REMOVED_PREFIX = ".removing-"
_MEGABYTE = 1 << 20


class CheckpointFolder:
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
        self, session: tf.Session, saver: tf.train.Saver, state: RunState, newest: int
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
