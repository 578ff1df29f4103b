"""The folder of a run's checkpoints: the latest and the best of them, saving and pruning.

Raises:
    UserError: a checkpoint is missing or damaged, or cannot be written.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tensorflow.compat.v1 as tf

from vae.errors import UserError
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.train_state import TrainState
from vae.utils.atomic import remove_leftovers, sync, temporary_file, temporary_folder
from vae.utils.outputs import make_folder, report_write_errors, write_error

Result = TypeVar("Result")

_MAX_READS = 20
"""Attempts to read a checkpoint of a folder from which a training removes them."""


@dataclass(frozen=True)
class CheckpointManager:
    """The folder of a run's checkpoints, which need not exist yet, or one checkpoint to read."""

    path: Path

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
        """Return the checkpoint with the best validation NDCG@100, which the latest one names.

        Before the first validation that is the latest one; None if there is none.
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

    def read_again_if_pruned(self, read: Callable[[], Result]) -> Result:
        """Return what a function reads from this folder, to which a training may write.

        Readers take no lock, so a training can remove the checkpoint that they read. The function
        is called again if it raised a UserError and there are other checkpoints than before.
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
        """Check, before training, that checkpoints can be written; remove what killed runs left."""
        flag = f"--checkpoint_dir {self.path}"
        make_folder(self.path, "--checkpoint_dir")
        with report_write_errors(flag, "; name another folder", exit_code=2):
            remove_leftovers(self.path)
        self.check_space(checkpoint_bytes)

    def check_space(self, checkpoint_bytes: int) -> None:
        """Check that there is room for a checkpoint."""
        path = self.path.absolute()
        free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
        if free < checkpoint_bytes:
            raise UserError(
                f"--checkpoint_dir {self.path}: {free / 2**20:.1f} MiB are free and a checkpoint "
                f"takes {checkpoint_bytes / 2**20:.1f} MiB; free some space or name another "
                "folder.",
                exit_code=1,
            )

    def save(self, state: TrainState, keep: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint atomically, then remove all but the ``keep`` latest and the best.

        ``write`` is ``checkpoint.write`` with all of its arguments but the folder.
        """
        fix = "; earlier checkpoints are intact: fix this and rerun the same command to resume"
        target = self.at(state.step)
        try:
            if target.exists():  # saved before a validation, whose result the state now holds
                checkpoint.replace_state(target, state)
            else:
                with temporary_folder(target) as temporary:
                    write(temporary)
                    temporary.rename(target)
                sync(self.path)
            for step in self.steps()[:-keep]:
                if step != state.best_step:
                    # Partly removed, it is a leftover and never taken for a whole checkpoint.
                    with temporary_file(self.at(step)) as removed:
                        self.at(step).rename(removed)
        except OSError as error:
            raise write_error(target, error, fix) from None
        except tf.errors.OpError as error:  # the reason is at the end of one of its lines
            lines = [line for line in error.message.splitlines() if "; " in line]
            reason = lines[-1].rpartition("; ")[2] if lines else type(error).__name__
            raise write_error(target, reason, fix) from None

    def later_steps(self, after: int) -> list[int]:
        """Return the steps of the checkpoints after a step, oldest first."""
        return [step for step in self.steps() if step > after]

    def set_aside(self, after: int) -> Path | None:
        """Move the checkpoints of later steps (-1: all) to a new subfolder ``replaced-N``.

        A run that starts over, or resumes from an earlier checkpoint, cannot mix with the previous
        run, whose checkpoints are not lost. Returns None if there was nothing to move.
        """
        later = self.later_steps(after)
        if not later:
            return None
        paths = (self.path / f"replaced-{n}" for n in itertools.count(1))
        target = next(path for path in paths if not path.exists())
        target.mkdir()
        # Latest first: wherever this is interrupted, the latest of those left is a valid state.
        for step in reversed(later):
            self.at(step).rename(target / self.at(step).name)
        return target
