"""One checkpoint on disk: a folder ``step-00001234`` with the whole state of a run.

TensorFlow's ``Saver`` files hold the weights, Adam's slots and the global step, and
``item_ids.npy`` the raw id of each item; ``state.json`` has the rest, and the digests of all files
and of its own text.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import Architecture
from vae.errors import UserError, one_line
from vae.models.checkpoints.train_state import TrainState
from vae.utils.atomic import sha256, sync, write_atomically
from vae.utils.json_types import has_type
from vae.utils.sealed_json import OtherFormatError, read_sealed, seal

FORMAT_VERSION = 2
STATE_FILE = "state.json"
ITEM_IDS_FILE = "item_ids.npy"
_PREFIX = "variables"
_INDEX, _DATA = rf"{_PREFIX}\.index", rf"{_PREFIX}\.data-\d{{5}}-of-\d{{5}}"
"""Names of the files of variables: one index, and one or more data files."""


def path_of(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"step-{step:08d}"


def is_checkpoint(path: Path) -> bool:
    """Return whether a folder is itself a checkpoint, under any name."""
    return (path / STATE_FILE).is_file()


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, oldest first."""
    names = (path.name for path in folder.glob("step-*") if path.is_dir())
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-[0-9]{8,}", name))


def write(
    checkpoint: Path,
    session: tf.Session,
    saver: tf.train.Saver,
    state: TrainState,
    item_ids: NDArray[np.generic] | None = None,
) -> None:
    """Write a checkpoint to an empty folder and flush it to the disk.

    Args:
        checkpoint: existing, empty folder.
        session: holds the variables.
        saver: of all variables.
        state: of the run.
        item_ids: (I,) raw id of each item; None to write none.

    Raises:
        OSError: the checkpoint cannot be written.
        tf.errors.OpError: TensorFlow cannot write the variables.
    """
    with _variables_in(checkpoint) as prefix:
        saver.save(session, prefix, write_meta_graph=False, write_state=False)
    if item_ids is not None:
        np.save(checkpoint / ITEM_IDS_FILE, item_ids, allow_pickle=False)
    digests = {path.name: sha256(path) for path in sorted(checkpoint.iterdir())}
    for name in digests:
        sync(checkpoint / name)
    _write_document(checkpoint / STATE_FILE, state, digests)


def replace_state(checkpoint: Path, state: TrainState) -> None:
    """Replace the state of a checkpoint; its variables stay.

    Raises:
        OSError: the state cannot be written; the checkpoint is unchanged.
        UserError: the checkpoint is damaged.
    """
    _, digests = _read_document(checkpoint)
    _write_document(checkpoint / STATE_FILE, state, digests)


def read_state(checkpoint: Path) -> TrainState:
    """Return the state of a checkpoint, without a look at its variables.

    Raises:
        UserError: the state is missing, damaged or of another format.
    """
    state, _ = _read_document(checkpoint)
    return state


def verify(checkpoint: Path) -> TrainState:
    """Return the state of a checkpoint whose files all have the digests they were written with.

    Raises:
        UserError: a file is missing, truncated or changed, or the format is another.
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
    """Load all variables of a training graph from a verified checkpoint.

    Raises:
        UserError: the variables cannot be read, such as of a checkpoint that was removed.
    """
    with _readable(checkpoint), _variables_in(checkpoint) as prefix:
        saver.restore(session, prefix)


def read_weights(checkpoint: Path) -> dict[str, NDArray[np.float32]]:
    """Return the layers' variables of a verified checkpoint by name; builds no graph.

    Raises:
        UserError: the variables cannot be read, such as of a checkpoint that was removed.
    """
    # Adam's slots are named after their variable, with another part at the end. The prior matters
    # in training alone.
    return read_variables(checkpoint, r"(encoder|decoder)/.*/(kernel|bias|gain)")


def read_variables(checkpoint: Path, pattern: str = ".*") -> dict[str, NDArray[Any]]:
    """Return the variables of a verified checkpoint by name; builds no graph.

    Args:
        checkpoint: checkpoint.
        pattern: regular expression of the names; all by default.

    Raises:
        UserError: the variables cannot be read, such as of a checkpoint that was removed.
    """
    with _readable(checkpoint), _variables_in(checkpoint) as prefix:
        reader = tf.train.load_checkpoint(prefix)
        names = reader.get_variable_to_shape_map()
        return {name: reader.get_tensor(name) for name in names if re.fullmatch(pattern, name)}


def read_item_ids(checkpoint: Path) -> NDArray[np.generic] | None:
    """Return the (I,) raw ids of a verified checkpoint; None if an earlier version wrote it.

    Raises:
        UserError: they cannot be read.
    """
    path = checkpoint / ITEM_IDS_FILE
    try:
        ids: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    return ids


def check_match(
    checkpoint: Path, state: TrainState, architecture: Architecture, dataset_fingerprint: str
) -> None:
    """Check that a checkpoint is of this model and this data.

    Raises:
        UserError: names what differs.
    """
    differences = architecture_differences(state, architecture)
    if state.dataset_fingerprint != dataset_fingerprint:
        differences.append(
            f"the dataset fingerprint is {state.dataset_fingerprint[:12]} there and "
            f"{dataset_fingerprint[:12]} here"
        )
    if differences:
        raise UserError(
            f"{checkpoint}: trained with another model or other data ({'; '.join(differences)}); "
            "leave these flags out and pass its data, or pass another --checkpoint_dir."
        )


def architecture_differences(
    state: TrainState, architecture: Architecture, ignore: str | None = None
) -> list[str]:
    """Return a phrase for each field of the architecture that is another one in a checkpoint.

    Args:
        state: of the checkpoint.
        architecture: to compare with.
        ignore: a field that may differ.
    """
    here = dataclasses.asdict(architecture)
    return [
        f"{name} is {state.architecture[name]} there and {here[name]} here"
        for name in here
        if name != ignore and state.architecture[name] != here[name]
    ]


@contextmanager
def _variables_in(checkpoint: Path) -> Iterator[str]:
    """Yield the path prefix of the variables' files, by way of an open descriptor of the folder.

    TensorFlow interprets a path as a pattern when it reads: a checkpoint in the folder ``run[1]``
    would be written there and never be found again.
    """
    folder = os.open(checkpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{_PREFIX}"
    finally:
        os.close(folder)


@contextmanager
def _readable(checkpoint: Path) -> Iterator[None]:
    """Convert a failed read of the variables of a checkpoint to a ``UserError``."""
    try:
        yield
    except OSError as error:
        raise _damaged(checkpoint / _PREFIX, error.strerror) from None
    except tf.errors.ResourceExhaustedError:  # the memory is at fault, not the checkpoint
        raise
    except tf.errors.OpError as error:
        raise _damaged(checkpoint / _PREFIX, one_line(error)) from None


def check_progress(checkpoint: Path, state: TrainState, users: int, steps_per_epoch: int) -> None:
    """Check that training on this number of users can have reached a checkpoint.

    Raises:
        UserError: it cannot, so the state is damaged.
    """
    try:
        state.check_progress(users, steps_per_epoch)
    except ValueError as error:
        raise _damaged(checkpoint / STATE_FILE, error) from None


def _read_document(checkpoint: Path) -> tuple[TrainState, dict[str, str]]:
    """Return the state and the digest of each file."""
    path = checkpoint / STATE_FILE

    def parse(document: dict[str, Any]) -> tuple[TrainState, dict[str, str]]:
        digests = document.pop("files")
        _check_digests(digests)
        state = TrainState.from_json(document)
        _check_name(checkpoint.name, state.step)
        return state, digests

    try:
        return read_sealed(path, "format", FORMAT_VERSION, parse)
    except OtherFormatError as error:
        fix = "train again, or use the version that wrote it"
        raise UserError(f"{path}: {error}; {fix}.") from None
    except OSError as error:
        raise _damaged(path, error.strerror) from None
    except ValueError as error:
        raise _damaged(path, error) from None


def _check_digests(digests: Any) -> None:
    """Check that the digests are those of the variables' files, and of no file elsewhere.

    Raises:
        ValueError: they are not.
    """
    if not has_type(digests, dict[str, str]):
        raise ValueError("files does not map names to digests")
    if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values()):
        raise ValueError("files holds an invalid digest")
    if not all(re.fullmatch(f"{_INDEX}|{_DATA}|{ITEM_IDS_FILE}", name) for name in digests):
        raise ValueError("files names another file than those of the variables and the ids")
    if not all(any(re.fullmatch(kind, name) for name in digests) for kind in (_INDEX, _DATA)):
        raise ValueError("files does not name all files of the variables")


def _check_name(name: str, step: int) -> None:
    """Check that a folder named after a step holds the checkpoint of that step.

    Raises:
        ValueError: it holds that of another step.
    """
    named = re.fullmatch(r"step-([0-9]{8,})", name)
    if named and int(named[1]) != step:
        raise ValueError(f"step is {step} in a folder named {name}")


def _write_document(path: Path, state: TrainState, digests: dict[str, str]) -> None:
    document = {"format": FORMAT_VERSION, "files": digests, **dataclasses.asdict(state)}
    write_atomically(path, seal(document), durable=True)


def _damaged(path: Path, cause: object) -> UserError:
    """Return the error for a damaged checkpoint; it names the next older one to resume from."""
    checkpoint = path.parent
    paths = (path_of(checkpoint.parent, step) for step in steps_in(checkpoint.parent))
    older = [path for path in paths if path.name < checkpoint.name]
    fix = f"resume from an older one with --resume {older[-1]}" if older else "use --restart"
    return UserError(f"{path}: the checkpoint is damaged ({cause}); {fix}, or remove {checkpoint}.")
