"""Prepared data on the disk: ``<data_dir>/<name>/preprocessed``.

Five CSR matrices in SciPy's format, uncompressed for fast loading, the raw ids of their rows and
columns, and ``manifest.json``, which is sealed and has the digest of each file. The manifest is
written last and removed first: without it nothing counts as prepared.

Raises:
    UserError: the folder cannot be read or written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, load_npz, save_npz

from vae.errors import UserError, one_line
from vae.load.config import Columns
from vae.load.dataset import Dataset, HeldOut, Split
from vae.utils.atomic import lock_folder, remove_leftovers, sha256, sync, temporary_folder
from vae.utils.outputs import report_write_errors
from vae.utils.sealed_json import OtherFormatError, read_sealed, seal

FORMAT_VERSION = 5
MANIFEST = "manifest.json"

_HELD_OUT = ("validation", "test")
_MATRICES = ("train", *(f"{name}_{part}" for name in _HELD_OUT for part in ("fold_in", "targets")))
_IDS = ("item_ids", "train_user_ids", *(f"{name}_user_ids" for name in _HELD_OUT))
FILES = (*(f"{name}.npz" for name in _MATRICES), *(f"{name}.npy" for name in _IDS))
"""Everything in the folder but the manifest."""


@dataclass(frozen=True)
class Provenance:
    """What prepared data were made from, and how.

    Attributes:
        sources: SHA-256 digest of each ratings file by its path as it was given, without pipes.
        columns: columns of the ratings files.
        threshold: least rating of an interaction.
        flags: value of every flag that the data depend on, by its name.
    """

    sources: dict[str, str]
    columns: Columns
    threshold: float
    flags: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The metadata of prepared data.

    Attributes:
        fingerprint: SHA-256 digest of the content of the matrices and ids, hexadecimal.
        provenance: what the data were made from.
        counts: what was kept and dropped, by step; see ``split.py``.
        files: SHA-256 digest of each other file of the folder by its name.
    """

    fingerprint: str
    provenance: Provenance
    counts: dict[str, int]
    files: dict[str, str]


def prepared_folder(data_dir: Path, name: str) -> Path:
    """Return the folder of a prepared data set."""
    return data_dir / name / "preprocessed"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder against a second preparation, which waits until the first one finishes.

    Temporary files of a killed preparation are removed.
    """
    with report_write_errors(folder, "; pass another --data_dir", exit_code=2):
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder, wait=True)
    try:
        remove_leftovers(folder)
        yield
    finally:
        os.close(lock)


def write_split(folder: Path, split: Split, provenance: Provenance) -> None:
    """Write a split and its manifest so that a crash leaves either all of it or nothing.

    Args:
        folder: folder of the prepared data, locked by the caller.
        split: matrices, ids and counts.
        provenance: what the split was made from.
    """
    matrices, ids = _matrices(split), _ids(split)
    with report_write_errors(folder), temporary_folder(folder / "new") as new:
        for name, matrix in matrices.items():
            save_npz(new / f"{name}.npz", matrix, compressed=False)
        for name, values in ids.items():
            np.save(new / f"{name}.npy", values, allow_pickle=False)
        files = {name: sha256(new / name) for name in FILES}
        manifest = Manifest(_fingerprint(matrices, ids), provenance, split.counts, files)
        text = seal({"format_version": FORMAT_VERSION, **asdict(manifest)})
        (new / MANIFEST).write_text(text, encoding="utf-8")
        for name in (*FILES, MANIFEST):
            sync(new / name)
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in (*FILES, MANIFEST):
            (new / name).replace(folder / name)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest, None where nothing is prepared."""
    path = folder / MANIFEST
    fix = "remove it and run prepare_dataset.py again"
    try:
        return read_sealed(path, "format_version", FORMAT_VERSION, _parse_manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        cause = f"cannot be read ({error.strerror})"
        fix = "fix this or prepare the data in another --data_dir"
    except OtherFormatError as error:
        cause = str(error)
    except ValueError as error:
        cause = f"is damaged ({error})"
    raise UserError(f"{path}: {cause}; {fix}.")


def _parse_manifest(document: dict[str, Any]) -> Manifest:
    provenance = document.pop("provenance")
    columns = Columns(**provenance.pop("columns"))
    if document["files"].keys() != set(FILES):  # no file elsewhere is ever opened
        raise ValueError("it does not list the prepared files")
    return Manifest(provenance=Provenance(columns=columns, **provenance), **document)


def open_dataset(data_dir: Path, name: str) -> Dataset:
    """Open a prepared data set and check every file against the manifest."""
    folder = prepared_folder(data_dir, name)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{folder}: holds no prepared data; run python prepare_dataset.py "
            f"--data_dir {data_dir} --dataset {name} first."
        )
    try:
        for file, digest in manifest.files.items():
            _check_file(folder / file, digest)
        matrices = {name: load_npz(folder / f"{name}.npz") for name in _MATRICES}
        ids = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in _IDS}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: cannot be opened ({one_line(error)}); run prepare_dataset.py again."
        ) from None
    # A preparation removes the manifest before it replaces the first of the files checked above.
    if read_manifest(folder) != manifest:
        raise UserError(
            f"{folder}: was prepared again while it was being opened; rerun the same command."
        )
    validation, test = (
        HeldOut(matrices[f"{name}_fold_in"], matrices[f"{name}_targets"], ids[f"{name}_user_ids"])
        for name in _HELD_OUT
    )
    return Dataset(
        matrices["train"],
        ids["train_user_ids"],
        ids["item_ids"],
        validation,
        test,
        manifest.counts,
        name=name,
        fingerprint=manifest.fingerprint,
        columns=manifest.provenance.columns,
        threshold=manifest.provenance.threshold,
    )


def _check_file(path: Path, digest: str) -> None:
    fix = "run prepare_dataset.py again"
    if not path.is_file():
        raise UserError(f"{path}: is missing; {fix}.")
    if sha256(path) != digest:
        raise UserError(f"{path}: differs from what was written (its digest is another); {fix}.")


def _matrices(split: Split) -> dict[str, csr_matrix]:
    parts = [matrix for part in split.held_out for matrix in (part.fold_in, part.targets)]
    return dict(zip(_MATRICES, (split.train, *parts), strict=True))


def _ids(split: Split) -> dict[str, NDArray[np.generic]]:
    users = [part.user_ids for part in split.held_out]
    return dict(zip(_IDS, (split.item_ids, split.train_user_ids, *users), strict=True))


def _fingerprint(matrices: Mapping[str, csr_matrix], ids: Mapping[str, NDArray[np.generic]]) -> str:
    """Return the SHA-256 digest of the data, independent of how NumPy and zip write them."""
    digest = hashlib.sha256()
    for name, matrix in matrices.items():
        digest.update(f"{name} {matrix.shape}".encode())
        digest.update(np.ascontiguousarray(matrix.indptr, "<i8").data)
        digest.update(np.ascontiguousarray(matrix.indices, "<i4").data)
    for name, values in ids.items():
        digest.update(f"{name} {values.dtype.str}".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()
