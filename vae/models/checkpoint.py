"""Checkpoints: whole folders that appear at once, each holding all that a run needs to go on.

A checkpoint is a folder ``step-00001234`` with TensorFlow's ``Saver`` files (weights, Adam's slots,
global step) and ``state.json``, which holds the rest and the digests of all files, its own text's
included. It is written under a temporary name, synced and renamed.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.errors import UserError
from vae.models.run_state import RunState
from vae.models.vae import Architecture
from vae.utils.files import sha256, sync

FORMAT_VERSION = 1
STATE_FILE = "state.json"
_PREFIX = "variables"
_DRAFT_PREFIX = ".writing-"
_REMOVED_PREFIX = ".removing-"
_MEGABYTE = 1 << 20


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def at(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.path / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        names = (path.name for path in self.path.glob("step-*") if path.is_dir())
        return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d{8,}", name))

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
        best_step = read_state(latest).best_step if latest else None
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

        Takes the folder for this process until ``release``, and removes what killed runs left.

        Raises:
            UserError: the folder cannot be written, is in use, or has no room for a checkpoint.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take()
            for leftover in [
                *self.path.glob(f"{_DRAFT_PREFIX}*"),
                *self.path.glob(f"{_REMOVED_PREFIX}*"),
            ]:
                shutil.rmtree(leftover)
            draft = self._new_draft()
            (draft / "probe").write_bytes(b"can this be written?")
            shutil.rmtree(draft)
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

    def release(self) -> None:
        """Lets other runs write here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save(
        self, session: tf.Session, saver: tf.train.Saver, state: RunState, newest: int
    ) -> None:
        """Writes a checkpoint whole, then removes all but the newest ones and the best.

        Raises:
            UserError: it cannot be written; those before it are as they were.
        """
        try:
            if self.at(state.step).exists():
                self._replace_state(state)
            else:
                self._write(session, saver, state)
            self._remove_old(newest, state.best_step)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(self._draft, ignore_errors=True)
            raise UserError(
                f"{self.at(state.step)}: the checkpoint cannot be written ({_cause(error)}); "
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

    @property
    def _draft(self) -> Path:
        return self.path / f"{_DRAFT_PREFIX}{os.getpid()}"

    def _new_draft(self) -> Path:
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir()
        return self._draft

    def _take(self) -> None:
        """Keeps other runs from writing here; the lock goes with the process, however it ends."""
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--checkpoint_dir {self.path}: another run is writing there; wait for its end, "
                "or name another folder."
            ) from None
        except OSError:
            pass  # Some network file systems have no locks.

    def _write(self, session: tf.Session, saver: tf.train.Saver, state: RunState) -> None:
        draft = self._new_draft()
        saver.save(session, str(draft / _PREFIX), write_meta_graph=False, write_state=False)
        digests = {path.name: sha256(path) for path in sorted(draft.iterdir())}
        _write_document(draft / STATE_FILE, state, digests)
        for path in draft.iterdir():
            sync(path)
        sync(draft)
        draft.rename(self.at(state.step))
        sync(self.path)

    def _replace_state(self, state: RunState) -> None:
        """Brings a checkpoint that was written before a validation up to its result."""
        checkpoint = self.at(state.step)
        _, digests = _read_document(checkpoint)
        draft = self._new_draft()
        _write_document(draft / STATE_FILE, state, digests)
        sync(draft / STATE_FILE)
        (draft / STATE_FILE).replace(checkpoint / STATE_FILE)
        sync(checkpoint)
        draft.rmdir()

    def _remove_old(self, newest: int, best_step: int | None) -> None:
        for step in self.steps()[:-newest]:
            if step != best_step:
                # Under this name, half a checkpoint is never taken for a whole one.
                removed = self.path / f"{_REMOVED_PREFIX}{step}"
                self.at(step).rename(removed)
                shutil.rmtree(removed)


def read_state(checkpoint: Path) -> RunState:
    """The state beside the variables of a checkpoint.

    Raises:
        UserError: it is missing, of another format, or damaged.
    """
    state, _ = _read_document(checkpoint)
    return state


def verify(checkpoint: Path) -> RunState:
    """The state of a checkpoint, once all of its files are found as they were written.

    Raises:
        UserError: a file is missing, truncated or changed.
    """
    state, digests = _read_document(checkpoint)
    for name, digest in digests.items():
        path = checkpoint / name
        try:
            found = sha256(path)
        except OSError as error:
            raise _damaged(path, error.strerror) from None
        if found != digest:
            raise _damaged(path, "its digest differs from the one written with it")
    return state


def restore(session: tf.Session, saver: tf.train.Saver, checkpoint: Path) -> None:
    """Loads all variables of a training graph from a verified checkpoint."""
    saver.restore(session, str(checkpoint / _PREFIX))


def read_weights(checkpoint: Path) -> dict[str, NDArray[np.float32]]:
    """The layers' variables in a verified checkpoint by name, without building a graph."""
    reader = tf.train.load_checkpoint(str(checkpoint / _PREFIX))
    names = reader.get_variable_to_shape_map()
    # Adam's slots are named after their variable, with another part at the end.
    return {n: reader.get_tensor(n) for n in names if n.endswith(("/kernel", "/bias"))}


def check_match(
    checkpoint: Path, state: RunState, architecture: Architecture, data_digest: str
) -> None:
    """Refuses a checkpoint of another model or other data.

    Raises:
        UserError: names what differs.
    """
    asked = dataclasses.asdict(architecture)
    differences = [
        f"{name} is {state.architecture.get(name)} there and {asked[name]} here"
        for name in asked
        if state.architecture.get(name) != asked[name]
    ]
    if state.data_digest != data_digest:
        differences.append(
            f"its data have the digest {state.data_digest[:12]}, these {data_digest[:12]}"
        )
    if differences:
        raise UserError(
            f"{checkpoint}: trained with another model or other data ({'; '.join(differences)}); "
            "give the flags and the data it was trained with, or another --checkpoint_dir."
        )


def _read_document(checkpoint: Path) -> tuple[RunState, dict[str, str]]:
    """The state and the files' digests."""
    path = checkpoint / STATE_FILE
    try:
        document = _unseal(path.read_text(encoding="utf-8"))
        version = document.pop("format")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path}: checkpoint format {version}, this program reads {FORMAT_VERSION}; "
                "train again or use the version that wrote it."
            )
        digests = document.pop("files")
        return RunState(**document), digests
    except OSError as error:
        raise _damaged(path, error.strerror) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from None


def _write_document(path: Path, state: RunState, digests: dict[str, str]) -> None:
    document = {"format": FORMAT_VERSION, "files": digests, **dataclasses.asdict(state)}
    path.write_text(_seal(document), encoding="utf-8")


def _seal(document: dict[str, Any]) -> str:
    """The document as JSON, with a checksum of itself."""
    checksum = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    return json.dumps({**document, "sha256": checksum}, indent=2) + "\n"


def _unseal(text: str) -> dict[str, Any]:
    """The document that was sealed.

    Raises:
        ValueError: the text is not what ``_seal`` wrote, to the byte.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    document.pop("sha256", None)
    if _seal(document) != text:
        raise ValueError("its checksum differs from the one written with it")
    return document


def _damaged(path: Path, cause: object) -> UserError:
    """The error for an unusable file of a checkpoint; it names the next older one as the mend."""
    checkpoint = path.parent
    folder = CheckpointFolder(checkpoint.parent)
    older = [folder.at(step) for step in folder.steps() if folder.at(step).name < checkpoint.name]
    mend = f"train on from an older one with --resume {older[-1]}" if older else "use --restart"
    return UserError(
        f"{path}: the checkpoint is damaged ({cause}); {mend}, or remove {checkpoint}."
    )


def _cause(error: OSError | tf.errors.OpError) -> str:
    """Why a file could not be written; TensorFlow says it at the end of one of many lines."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    lines = [line for line in error.message.splitlines() if _DRAFT_PREFIX in line]
    return lines[-1].rpartition("; ")[2] if lines else type(error).__name__
