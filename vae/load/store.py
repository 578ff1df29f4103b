"""Prepared data on the disk: ``<data_dir>/<name>/preprocessed``.

Five CSR matrices in SciPy's format, uncompressed for fast loading, the raw ids of their rows and
columns, and ``manifest.json``. The manifest is written last and removed first: without it nothing
counts as prepared.
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

FORMAT_VERSION = 4
MANIFEST = "manifest.json"

_MATRICES = (
    "train",
    "validation_fold_in",
    "validation_targets",
    "test_fold_in",
    "test_targets",
)
_IDS = ("item_ids", "train_user_ids", "validation_user_ids", "test_user_ids")
FILES = (*(f"{name}.npz" for name in _MATRICES), *(f"{name}.npy" for name in _IDS))
"""Everything in the folder but the manifest."""


@dataclass(frozen=True)
class FileDigest:
    """Size and digest of a file.

    Attributes:
        path: path of a ratings file as it was given, or name of a file in the folder.
        bytes: size of the file.
        sha256: its SHA-256 digest, hexadecimal.
    """

    path: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> FileDigest:
        """Return those of an existing file.

        Raises:
            OSError: the file cannot be read.
        """
        return cls(name, path.stat().st_size, sha256(path))


@dataclass(frozen=True)
class Provenance:
    """What prepared data were made from, and how.

    Attributes:
        sources: the ratings files.
        columns: columns of the ratings files.
        threshold: least rating of an interaction.
        flags: value of every flag that the data depend on, by its name.
    """

    sources: list[FileDigest]
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
        files: the other files of the folder.
    """

    fingerprint: str
    provenance: Provenance
    counts: dict[str, int]
    files: list[FileDigest]


def prepared_folder(data_dir: Path, name: str) -> Path:
    """Return the folder of a prepared data set."""
    return data_dir / name / "preprocessed"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder against a second preparation, which waits until the first one finishes.

    Temporary files of a killed preparation are removed.

    Raises:
        UserError: the folder cannot be written to.
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

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    matrices = {
        "train": split.train,
        "validation_fold_in": split.validation.fold_in,
        "validation_targets": split.validation.targets,
        "test_fold_in": split.test.fold_in,
        "test_targets": split.test.targets,
    }
    ids = {
        "item_ids": split.item_ids,
        "train_user_ids": split.train_user_ids,
        "validation_user_ids": split.validation.user_ids,
        "test_user_ids": split.test.user_ids,
    }
    with report_write_errors(folder), temporary_folder(folder / "new") as new:
        for name, matrix in matrices.items():
            save_npz(new / f"{name}.npz", matrix, compressed=False)
        for name, values in ids.items():
            np.save(new / f"{name}.npy", values, allow_pickle=False)
        manifest = Manifest(
            _fingerprint(matrices, ids),
            provenance,
            split.counts,
            [FileDigest.of(new / name, name) for name in FILES],
        )
        text = seal({"format_version": FORMAT_VERSION, **asdict(manifest)})
        (new / MANIFEST).write_text(text, encoding="utf-8")
        for name in (*FILES, MANIFEST):
            sync(new / name)
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in (*FILES, MANIFEST):
            (new / name).replace(folder / name)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest, None where nothing is prepared.

    Raises:
        UserError: it is damaged, cannot be read, or another version of this program wrote it.
    """
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


def _parse_manifest(document: Mapping[str, Any]) -> Manifest:
    files = [FileDigest(**file) for file in document["files"]]
    # A name that leads out of the folder is never opened.
    if sorted(file.path for file in files) != sorted(FILES):
        raise ValueError("it does not list the prepared files")
    provenance = document["provenance"]
    return Manifest(
        document["fingerprint"],
        Provenance(
            [FileDigest(**source) for source in provenance["sources"]],
            Columns(**provenance["columns"]),
            provenance["threshold"],
            provenance["flags"],
        ),
        document["counts"],
        files,
    )


def open_dataset(data_dir: Path, name: str) -> Dataset:
    """Open a prepared data set and check every file against the manifest.

    Raises:
        UserError: nothing is prepared there, or a file is missing, damaged or of another set.
    """
    folder = prepared_folder(data_dir, name)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{folder}: holds no prepared data; run python prepare_dataset.py "
            f"--data_dir {data_dir} --dataset {name} first."
        )
    try:
        for file in manifest.files:
            _check_file(folder, file)
        matrices = {name: _load_matrix(folder / f"{name}.npz") for name in _MATRICES}
        ids = {name: _load_ids(folder / f"{name}.npy") for name in _IDS}
        dataset = Dataset(
            name=name,
            train=matrices["train"],
            train_user_ids=ids["train_user_ids"],
            item_ids=ids["item_ids"],
            validation=HeldOut(
                matrices["validation_fold_in"],
                matrices["validation_targets"],
                ids["validation_user_ids"],
            ),
            test=HeldOut(matrices["test_fold_in"], matrices["test_targets"], ids["test_user_ids"]),
            fingerprint=manifest.fingerprint,
            columns=manifest.provenance.columns,
            threshold=manifest.provenance.threshold,
        )
        dataset.check()
    except UserError:
        raise
    except Exception as error:  # zipfile, NumPy and SciPy raise anything on damaged files
        raise UserError(
            f"{folder}: cannot be opened ({one_line(error)}); run prepare_dataset.py again."
        ) from None
    # A preparation removes the manifest before it replaces the first of the files checked above.
    if read_manifest(folder) != manifest:
        raise UserError(
            f"{folder}: was prepared again while it was being opened; rerun the same command."
        )
    return dataset


def _check_file(folder: Path, file: FileDigest) -> None:
    path = folder / file.path
    fix = "run prepare_dataset.py again"
    if not path.is_file():
        raise UserError(f"{path}: is missing; {fix}.")
    size = path.stat().st_size
    if size != file.bytes:
        raise UserError(f"{path}: has {size} bytes where the manifest says {file.bytes}; {fix}.")
    if sha256(path) != file.sha256:
        raise UserError(f"{path}: differs from what was written (its digest is another); {fix}.")


def _load_matrix(path: Path) -> csr_matrix:
    """Load a matrix that ``scipy.sparse.save_npz`` wrote; no pickled object is loaded."""
    matrix = load_npz(path)
    if not isinstance(matrix, csr_matrix):
        raise ValueError(f"{path.name} is not a CSR matrix")
    return matrix


def _load_ids(path: Path) -> NDArray[Any]:
    """Load an array of ids; unlike ``np.load``, refuse an archive in its place.

    Returns:
        (ids,) integers or fixed-width unicode.
    """
    with path.open("rb") as file:
        ids: NDArray[Any] = np.lib.format.read_array(  # type: ignore[no-untyped-call]
            file, allow_pickle=False
        )
    if ids.ndim != 1 or ids.dtype.kind not in "iU":
        raise ValueError(f"{path.name} is not an array of ids")
    return ids


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
