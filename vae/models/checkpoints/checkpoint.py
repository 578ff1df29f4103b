"""One checkpoint on disk: a folder ``step-00001234`` with the whole state of a run.

TensorFlow's ``Saver`` files hold the weights, Adam's slots and the global step, and
``item_ids.npy`` the raw id of each item; ``state.json`` has the rest, and the digests of all files
and of its own text.

Raises:
    UserError: a checkpoint is damaged, of another format, or of another model or data.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import Architecture
from vae.errors import UserError, one_line
from vae.models.checkpoints.item_blocks import Block, merge
from vae.models.checkpoints.train_state import TrainState
from vae.utils.atomic import sha256, sync, write_atomically
from vae.utils.distributed import cpu_session
from vae.utils.sealed_json import OtherFormatError, read_sealed, seal

FORMAT_VERSION = 3
STATE_FILE = "state.json"
ITEM_IDS_FILE = "item_ids.npy"
_PREFIX = "variables"


def path_of(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """Return the step that a folder is named after; None if it has another name."""
    name = re.fullmatch(r"step-([0-9]{8,})", path.name)
    return int(name[1]) if name else None


def is_checkpoint(path: Path) -> bool:
    """Return whether a folder is itself a checkpoint, under any name."""
    return (path / STATE_FILE).is_file()


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints in a folder, oldest first."""
    steps = (step_of(path) for path in folder.glob("step-*") if path.is_dir())
    return sorted(step for step in steps if step is not None)


def write(
    session: tf.Session,
    saver: tf.train.Saver,
    state: TrainState,
    item_ids: NDArray[np.generic],
    blocks: Iterable[Block] | None,
    checkpoint: Path,
) -> None:
    """Write a checkpoint, with the (I,) raw ids, to an empty folder and flush it to the disk.

    The variables of divided items are in ``blocks``. What cannot be written is an OSError; of the
    variables, TensorFlow's OpError.
    """
    with _variables_in(checkpoint) as prefix:
        first = prefix if blocks is None else f"{prefix}-0"
        saver.save(session, first, write_meta_graph=False, write_state=False)
        if blocks is not None:
            merge(prefix, [first], blocks)
    np.save(checkpoint / ITEM_IDS_FILE, item_ids, allow_pickle=False)
    digests = {path.name: sha256(path) for path in sorted(checkpoint.iterdir())}
    for name in digests:
        sync(checkpoint / name)
    _write_state(checkpoint, state, digests)


def replace_state(checkpoint: Path, state: TrainState) -> None:
    """Replace the state of a checkpoint; its variables stay, and all of it after an OSError."""
    _, digests = _read_state(checkpoint)
    _write_state(checkpoint, state, digests)


def read_state(checkpoint: Path) -> TrainState:
    """Return the state of a checkpoint, without a look at its variables."""
    state, _ = _read_state(checkpoint)
    return state


def verify(checkpoint: Path) -> TrainState:
    """Return the state of a checkpoint whose files all have the digests they were written with."""
    state, digests = _read_state(checkpoint)
    for name, digest in digests.items():
        with _reading(checkpoint / name) as path:
            if sha256(path) != digest:
                raise ValueError("its digest differs from the one written with it")
    return state


def restore(session: tf.Session, saver: tf.train.Saver, checkpoint: Path) -> None:
    """Load all variables of a training graph from a verified checkpoint."""
    with _reading(checkpoint / _PREFIX), _variables_in(checkpoint) as prefix:
        saver.restore(session, prefix)


def read_part(checkpoint: Path, name: str, place: str) -> NDArray[np.float32]:
    """Return a part of a variable of a verified checkpoint, see ``Block``."""
    with (
        _reading(checkpoint / _PREFIX),
        _variables_in(checkpoint) as prefix,
        cpu_session() as session,
    ):
        restore = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=[name], shape_and_slices=[place], dtypes=[tf.float32]
        )
        values: NDArray[np.float32] = session.run(restore)[0]
        return values


def read_weights(checkpoint: Path) -> dict[str, NDArray[np.float32]]:
    """Return the layers' variables of a verified checkpoint by name; builds no graph."""
    # Adam's slots are named after their variable, with another part at the end. The prior matters
    # in training alone.
    return read_variables(checkpoint, r"(encoder|decoder)/.*/(kernel|bias|gain)")


def read_variables(checkpoint: Path, pattern: str = ".*") -> dict[str, NDArray[Any]]:
    """Return the variables whose names match a pattern; otherwise like :func:`read_weights`."""
    with _reading(checkpoint / _PREFIX), _variables_in(checkpoint) as prefix:
        reader = tf.train.load_checkpoint(prefix)
        names = reader.get_variable_to_shape_map()
        return {name: reader.get_tensor(name) for name in names if re.fullmatch(pattern, name)}


def read_item_ids(checkpoint: Path) -> NDArray[np.generic]:
    """Return the (I,) raw ids of a verified checkpoint."""
    with _reading(checkpoint / ITEM_IDS_FILE) as path:
        ids: NDArray[np.generic] = np.load(path, allow_pickle=False)
        return ids


def check_match(
    checkpoint: Path,
    state: TrainState,
    architecture: Architecture,
    dataset_fingerprint: str,
    earlier: Collection[str] = (),
) -> None:
    """Check that a checkpoint is of this model and this data; a UserError names what differs.

    The ``earlier`` fingerprints are those of the data before they grew.
    """
    if state.dataset_fingerprint in earlier:
        raise UserError(
            f"{checkpoint}: trained on the data before --extend added to them; train it further "
            f"with --train --warm_start {checkpoint} and another --checkpoint_dir."
        )
    if differences := state.differences(architecture, dataset_fingerprint):
        raise UserError(
            f"{checkpoint}: trained with another model or other data ({'; '.join(differences)}); "
            "leave these flags out and pass its data, or pass another --checkpoint_dir."
        )


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


def _read_state(checkpoint: Path) -> tuple[TrainState, dict[str, str]]:
    """Return the state and the digest of each file."""

    def parse(document: dict[str, Any]) -> tuple[TrainState, dict[str, str]]:
        digests = document.pop("files")
        if any("/" in name for name in digests):
            raise ValueError("it names files outside of the checkpoint")
        state = TrainState.from_json(document)
        if step_of(checkpoint) not in (None, state.step):
            raise ValueError(f"step is {state.step} in a folder named {checkpoint.name}")
        return state, digests

    with _reading(checkpoint / STATE_FILE) as path:
        return read_sealed(path, "format", FORMAT_VERSION, parse)


def _write_state(checkpoint: Path, state: TrainState, digests: dict[str, str]) -> None:
    document = {"format": FORMAT_VERSION, "files": digests, **dataclasses.asdict(state)}
    write_atomically(checkpoint / STATE_FILE, seal(document), durable=True)


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    """Convert a failed read of a file of a checkpoint to a ``UserError`` with what to do."""
    cause: object
    try:
        yield path
        return
    except OtherFormatError as error:
        fix = "train again, or use the version that wrote it"
        raise UserError(f"{path}: {error}; {fix}.") from None
    except OSError as error:
        cause = error.strerror
    except ValueError as error:
        cause = error
    except tf.errors.ResourceExhaustedError:  # the memory is at fault, not the checkpoint
        raise
    except tf.errors.OpError as error:
        cause = one_line(error)
    checkpoint = path.parent
    paths = (path_of(checkpoint.parent, step) for step in steps_in(checkpoint.parent))
    older = [path for path in paths if path.name < checkpoint.name]
    fix = "train again with --restart"
    if older:
        fix = f"resume from an older one with --resume {older[-1]}"
    raise UserError(f"{path}: the checkpoint is damaged ({cause}); {fix}, or remove {checkpoint}.")
