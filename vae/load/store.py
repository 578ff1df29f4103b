"""Prepared data on the disk: ``<data_dir>/<name>/preprocessed``.

Five CSR matrices, the raw ids of their rows and columns and the interactions that wait for more lie
in a folder ``data-0`` or ``data-1``; ``manifest.json``, which is sealed, names the folder and has
the digest of each file. Its atomic replacement turns from the old data to the new ones. The
matrices, all of ones, are opened memory-mapped: the workers of a host share one copy.

Raises:
    UserError: the folder cannot be read or written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from vae.errors import UserError, one_line
from vae.load.config import Columns
from vae.load.dataset import Dataset, HeldOut, Split
from vae.utils.atomic import (
    lock_folder,
    remove_leftovers,
    sha256,
    sync,
    temporary_folder,
    write_atomically,
)
from vae.utils.outputs import report_write_errors
from vae.utils.sealed_json import OtherFormatError, read_sealed, seal

FORMAT_VERSION = 6
MANIFEST = "manifest.json"

_MATRICES = ("train", "validation.fold_in", "validation.targets", "test.fold_in", "test.targets")
_IDS = ("item_ids", "train_user_ids", "validation.user_ids", "test.user_ids")
_ARRAYS = (*(f"{name}.{part}" for name in _MATRICES for part in ("indptr", "indices")), *_IDS)

FILES = {f"{name.replace('.', '_')}.npy": name for name in _ARRAYS}
"""What every data set has beside the manifest: the attribute of a split in each file."""

WAITING = "waiting.parquet"
_FOLDERS = ("data-0", "data-1")


@dataclass(frozen=True)
class Provenance:
    """What prepared data were made from, and how.

    Attributes:
        sources: SHA-256 digest of each ratings file by its path as it was given, without pipes.
        flags: value of every flag that the data depend on, by its name.
        grew_from: training interactions of earlier data, by fingerprint; the oldest first.
    """

    sources: dict[str, str]
    columns: Columns
    threshold: float
    flags: dict[str, Any]
    grew_from: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The metadata of prepared data.

    Attributes:
        fingerprint: SHA-256 digest of the content of the matrices and ids, hexadecimal.
        counts: what was kept and dropped, by step; see ``split.py``.
        files: SHA-256 digest of each other file by its name.
        folder: name of the folder of these files.
    """

    fingerprint: str
    provenance: Provenance
    counts: dict[str, int]
    files: dict[str, str]
    folder: str


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
    """Write a split and its manifest so that a crash leaves all of it or what was there before.

    The caller has locked the folder.
    """
    before = None
    with suppress(UserError):  # damaged data are replaced
        before = read_manifest(folder)
    name, other = reversed(_FOLDERS) if before and before.folder == _FOLDERS[0] else _FOLDERS
    place = folder / name
    with report_write_errors(folder), temporary_folder(place) as new:
        for file, attribute in FILES.items():
            np.save(new / file, attrgetter(attribute)(split), allow_pickle=False)
        if split.waiting is not None:
            with (new / WAITING).open("wb") as file_object:  # any name, not UTF-8 alone
                pq.write_table(split.waiting, file_object)
        files = {path.name: sha256(path) for path in sorted(new.iterdir())}
        for path in (*new.iterdir(), new):
            sync(path)
        rmtree(place, ignore_errors=True)  # of a killed preparation
        if os.path.lexists(place):  # a link or a file, which rmtree leaves
            place.unlink()
        new.replace(place)
        sync(folder)
        manifest = Manifest(_fingerprint(split), provenance, split.counts, files, name)
        text = seal({"format_version": FORMAT_VERSION, **asdict(manifest)})
        write_atomically(folder / MANIFEST, text, durable=True)
        rmtree(folder / other, ignore_errors=True)


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
    # No file elsewhere is ever opened.
    if document["files"].keys() - {WAITING} != set(FILES):
        raise ValueError("it does not list the prepared files")
    if document["folder"] not in _FOLDERS:
        raise ValueError("its folder is another")
    return Manifest(provenance=Provenance(columns=columns, **provenance), **document)


def require_manifest(data_dir: Path, name: str) -> Manifest:
    """Return the manifest of a data set, which must be prepared."""
    folder = prepared_folder(data_dir, name)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{folder}: holds no prepared data; run python prepare_dataset.py "
            f"--data_dir {data_dir} --dataset {name} first."
        )
    return manifest


def open_dataset(data_dir: Path, name: str) -> Dataset:
    """Open a prepared data set and check every file against the manifest."""
    folder = prepared_folder(data_dir, name)
    manifest = require_manifest(data_dir, name)
    split: dict[str, Any] = {}
    problem = next(damage(folder, manifest), None)
    try:
        if problem is None:
            split = _open_split(folder / manifest.folder)
    except (OSError, ValueError) as error:
        problem = f"{folder}: cannot be opened ({one_line(error)})"
    # A preparation removes the old files after it has replaced the manifest.
    if read_manifest(folder) != manifest:
        raise UserError(
            f"{folder}: was prepared again while it was being opened; rerun the same command."
        )
    if problem is not None:
        raise UserError(f"{problem}; run prepare_dataset.py again.")
    return Dataset(
        **split,
        counts=manifest.counts,
        name=name,
        fingerprint=manifest.fingerprint,
        columns=manifest.provenance.columns,
        threshold=manifest.provenance.threshold,
        grew_from=manifest.provenance.grew_from,
    )


def damage(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield a phrase on each file that is not what the manifest says."""
    for name, digest in manifest.files.items():
        path = folder / manifest.folder / name
        try:
            if sha256(path) != digest:
                yield f"{path}: differs from what was written (its digest is another)"
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            yield f"{path}: {'is missing' if is_missing else 'cannot be read'}"


def _open_split(folder: Path) -> dict[str, Any]:
    """Return the attributes of a split: ids and read-only matrices."""
    part: dict[str, Any] = {
        name: np.load(folder / file, mmap_mode=None if name in _IDS else "r")
        for file, name in FILES.items()
    }
    for name in _MATRICES:
        indptr, indices = part.pop(f"{name}.indptr"), part.pop(f"{name}.indices")
        shape = len(indptr) - 1, len(part["item_ids"])
        part[name] = csr_matrix((np.ones(len(indices), np.uint8), indices, indptr), shape)
    for name in ("validation", "test"):
        attributes = ("fold_in", "targets", "user_ids")
        part[name] = HeldOut(*(part.pop(f"{name}.{attribute}") for attribute in attributes))
    return part


def _fingerprint(split: Split) -> str:
    """Return the SHA-256 digest of the data, independent of how NumPy and zip write them."""
    digest = hashlib.sha256()
    for attribute in (*_MATRICES, *_IDS):
        name, part = attribute.replace(".", "_"), attrgetter(attribute)(split)
        if attribute in _MATRICES:
            digest.update(f"{name} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part.indptr, "<i8").data)
            digest.update(np.ascontiguousarray(part.indices, "<i4").data)
        else:
            digest.update(f"{name} {part.dtype.str}".encode())
            digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.hexdigest()
