"""The prepared data on the disk: ``<data_dir>/<name>/preprocessed``.

Five CSR matrices in SciPy's format, uncompressed for fast loading, the raw ids of their rows and
columns, and ``manifest.json``. The manifest is written last and removed first: without it nothing
counts as prepared.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, load_npz, save_npz

from vae.errors import UserError
from vae.load.columns import Columns
from vae.load.config import SEPARATOR
from vae.load.dataset import Dataset, HeldOut, Split
from vae.utils.atomic import (
    lock_folder,
    read_text,
    remove_leftovers,
    seal,
    sha256,
    sync,
    temporary_file,
    unseal,
)
from vae.utils.json_types import check_types, from_json, has_type, shown

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

_MANIFEST_TYPES = {
    "format_version": int,
    "fingerprint": str,
    "sources": list[dict[str, Any]],
    "parameters": dict[str, Any],
    "counts": dict[str, int],
    "files": dict[str, dict[str, Any]],
}
_SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True)
class _File:
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def prepared_folder(data_dir: Path, name: str) -> Path:
    """Where a prepared data set lies."""
    return data_dir / name / "preprocessed"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second preparation out of the folder; it waits for the first to finish.

    Removes what a killed one left.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder, wait=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); give another --data_dir."
        ) from None
    try:
        remove_leftovers(folder)
        yield
    finally:
        os.close(lock)


def write_split(folder: Path, split: Split, facts: Mapping[str, Any]) -> None:
    """Writes a split and its manifest, so that a crash leaves either all of it or nothing.

    Args:
        folder: of the prepared data, locked by the caller.
        split: what to write.
        facts: what the manifest should say of the sources and the parameters.

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
    written: dict[Path, Path] = {}
    try:
        with ExitStack() as temporaries:

            def temporary(name: str) -> Path:
                target = folder / name
                written[target] = temporaries.enter_context(temporary_file(target))
                return written[target]

            for name, matrix in matrices.items():
                save_npz(temporary(f"{name}.npz"), matrix, compressed=False)
            for name, values in ids.items():
                with temporary(f"{name}.npy").open("wb") as file:
                    np.save(file, values, allow_pickle=False)
            manifest = {
                "format_version": FORMAT_VERSION,
                "fingerprint": _fingerprint(matrices, ids),
                **facts,
                "counts": split.counts,
                "files": {
                    target.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
                    for target, path in written.items()
                },
            }
            temporary(MANIFEST).write_text(seal(manifest), encoding="utf-8")
            for path in written.values():
                sync(path)
            (folder / MANIFEST).unlink(missing_ok=True)
            for target, path in written.items():
                path.replace(target)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}).", exit_code=1) from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None where nothing is prepared.

    Raises:
        UserError: it cannot be understood, or another version of this program wrote it.
    """
    path = folder / MANIFEST
    try:
        text = read_text(path)
        manifest = json.loads(text)
        version = manifest["format_version"]
        if version == FORMAT_VERSION:
            manifest = unseal(text)
            _check_manifest(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); mend that, or "
            "prepare the data in another --data_dir."
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        cause = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path}: is damaged ({cause}); remove it and run prepare_dataset.py again."
        ) from None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: was written in format {version}, this program reads {FORMAT_VERSION}; "
            "remove it and run prepare_dataset.py again."
        )
    return dict(manifest)


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Makes sure that what a manifest says can be true.

    Raises:
        ValueError: a value is missing, of another type or impossible.
        KeyError: a parameter is missing.
    """
    for name, hint in _MANIFEST_TYPES.items():
        if not has_type(manifest.get(name), hint):
            raise ValueError(f"{name} is {shown(manifest.get(name))}")
    if set(manifest["files"]) != {f"{n}.npz" for n in _MATRICES} | {f"{n}.npy" for n in _IDS}:
        raise ValueError("it does not list the prepared files")
    for file in manifest["files"].values():
        from_json(_File, file)
    digests = [manifest["fingerprint"], *(source.get("sha256") for source in manifest["sources"])]
    for digest in digests:
        if not (has_type(digest, str) and re.fullmatch(_SHA256, digest)):
            raise ValueError(f"{shown(digest)} is not a digest")
    parameters = manifest["parameters"]
    columns = Columns.of(parameters)
    check_types(columns)
    if columns.separator is not None and not re.fullmatch(SEPARATOR, columns.separator):
        raise ValueError(f"separator is {shown(columns.separator)}")
    if not has_type(parameters["threshold"], float):
        raise ValueError(f"threshold is {shown(parameters['threshold'])}")


def open_dataset(data_dir: Path, name: str) -> Dataset:
    """Opens a prepared data set, checking every file against the manifest.

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
        for file, facts in manifest["files"].items():
            _check_file(folder / file, facts)
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
            fingerprint=manifest["fingerprint"],
            columns=Columns.of(manifest["parameters"]),
            threshold=manifest["parameters"]["threshold"],
        )
        dataset.check()
    except UserError:
        raise
    except Exception as error:  # zipfile, NumPy and SciPy raise anything on damaged files
        raise UserError(
            f"{folder}: cannot be opened ({error}); run prepare_dataset.py again."
        ) from None
    # A preparation removes the manifest before it replaces the first of the files checked above.
    if read_manifest(folder) != manifest:
        raise UserError(f"{folder}: was prepared again while it was opened; start once more.")
    return dataset


def _check_file(path: Path, facts: Mapping[str, Any]) -> None:
    mend = "run prepare_dataset.py again"
    if not path.is_file():
        raise UserError(f"{path}: is missing; {mend}.")
    if path.stat().st_size != facts["bytes"]:
        raise UserError(
            f"{path}: has {path.stat().st_size} bytes where the manifest says {facts['bytes']}; "
            f"{mend}."
        )
    if sha256(path) != facts["sha256"]:
        raise UserError(f"{path}: differs from what was written (its digest is another); {mend}.")


def _load_matrix(path: Path) -> csr_matrix:
    """Load a matrix that ``scipy.sparse.save_npz`` wrote; no pickled object is loaded."""
    matrix = load_npz(path)
    if not isinstance(matrix, csr_matrix):
        raise ValueError(f"{path.name} is not a CSR matrix")
    return matrix


def _load_ids(path: Path) -> NDArray[Any]:
    """Ids as they were written; unlike ``np.load``, this opens no archive in their place."""
    with path.open("rb") as file:
        ids: NDArray[Any] = np.lib.format.read_array(  # type: ignore[no-untyped-call]
            file, allow_pickle=False
        )
    if ids.ndim != 1 or ids.dtype.kind not in "iU":
        raise ValueError(f"{path.name} holds no ids")
    return ids


def _fingerprint(matrices: Mapping[str, csr_matrix], ids: Mapping[str, NDArray[np.generic]]) -> str:
    """Of what the data are, not of how NumPy and zip write them."""
    digest = hashlib.sha256()
    for name, matrix in matrices.items():
        digest.update(f"{name} {matrix.shape}".encode())
        digest.update(np.ascontiguousarray(matrix.indptr, "<i8").data)
        digest.update(np.ascontiguousarray(matrix.indices, "<i4").data)
    for name, values in ids.items():
        digest.update(f"{name} {values.dtype.str}".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()
