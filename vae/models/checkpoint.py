"""Checkpoints: whole folders that appear at once, each holding all that a run needs to go on.

A checkpoint is a folder ``step-00001234`` with TensorFlow's ``Saver`` files (weights, Adam's slots,
global step) and ``state.json``. It is written under a temporary name, synced and renamed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.errors import UserError
from vae.models.vae import Architecture

FORMAT_VERSION = 1
_STATE_FILE = "state.json"
_PREFIX = "variables"


@dataclass(frozen=True)
class RunState:
    """Everything of a run that is not a TensorFlow variable.

    Attributes:
        architecture: fields of the model's ``Architecture``.
        data_digest: the digest of the prepared data.
        config: the flags of the run, as JSON values.
        epoch: epochs completed.
        batch: batches completed of the epoch after those.
        losses: the sums of the losses over those batches.
        best_ndcg: best validation NDCG@100 so far, None before the first validation.
        best_step: the step of that validation.
        step: steps completed in all.
    """

    architecture: dict[str, Any]
    data_digest: str
    config: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=list)
    best_ndcg: float | None = None
    best_step: int | None = None
    step: int = 0

    @classmethod
    def new(cls, architecture: Architecture, data_digest: str, config: dict[str, Any]) -> RunState:
        """The state of a run that has not begun."""
        return cls(dataclasses.asdict(architecture), data_digest, config)


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def at(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.path / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        folders = self.path.glob("step-*")
        return sorted(int(path.name.removeprefix("step-")) for path in folders)

    def latest(self) -> Path | None:
        """The newest checkpoint, if there is any."""
        steps = self.steps()
        return self.at(steps[-1]) if steps else None

    def best(self) -> Path | None:
        """The checkpoint with the best validation NDCG@100, or the newest before any validation."""
        latest = self.latest()
        if latest is None:
            return None
        best_step = read_state(latest).best_step
        return latest if best_step is None else self.at(best_step)

    def save(self, session: tf.Session, saver: tf.train.Saver, state: RunState) -> Path:
        """Writes a checkpoint whole; one of the same step stays as it is."""
        target = self.at(state.step)
        if target.exists():
            return target
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".writing-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        saver.save(session, str(draft / _PREFIX), write_meta_graph=False, write_state=False)
        digests = {path.name: _sha256(path) for path in sorted(draft.iterdir())}
        document = {"format": FORMAT_VERSION, "files": digests, **dataclasses.asdict(state)}
        (draft / _STATE_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        for path in draft.iterdir():
            _sync(path)
        _sync(draft)
        draft.rename(target)
        _sync(self.path)
        return target

    def keep(self, newest: int) -> None:
        """Removes all but the newest checkpoints and the best one."""
        best = self.best()
        for step in self.steps()[:-newest]:
            if self.at(step) != best:
                shutil.rmtree(self.at(step))


def read_state(checkpoint: Path) -> RunState:
    """The state beside the variables of a checkpoint.

    Raises:
        UserError: it is missing, of another format, or damaged.
    """
    path = checkpoint / _STATE_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.pop("format")
        document.pop("files")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: checkpoint format {version}, this program reads {FORMAT_VERSION}; "
            "train again or use the version that wrote it."
        )
    try:
        return RunState(**document)
    except TypeError as error:
        raise _damaged(path, error) from None


def verify_files(checkpoint: Path) -> None:
    """Checks the variables' files against the digests that were written with them.

    Raises:
        UserError: a file is missing, truncated or changed.
    """
    document = json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8"))
    for name, digest in document["files"].items():
        path = checkpoint / name
        if not path.is_file() or _sha256(path) != digest:
            raise _damaged(path, "its digest differs from the one written with it")


def restore(session: tf.Session, saver: tf.train.Saver, checkpoint: Path) -> None:
    """Loads all variables of a training graph."""
    verify_files(checkpoint)
    saver.restore(session, str(checkpoint / _PREFIX))


def read_weights(checkpoint: Path) -> dict[str, NDArray[np.float32]]:
    """The variables of a checkpoint by name, without building a graph."""
    verify_files(checkpoint)
    reader = tf.train.load_checkpoint(str(checkpoint / _PREFIX))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


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


def _damaged(path: Path, cause: object) -> UserError:
    return UserError(
        f"{path}: the checkpoint is damaged ({cause}); remove its folder to use an older one."
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
