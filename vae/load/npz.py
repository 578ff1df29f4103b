"""CSR matrices in SciPy's ``.npz`` format, laid out so that they can be mapped into memory.

``scipy.sparse.save_npz`` puts its arrays wherever they fall in the archive, mostly at odd
addresses, where NumPy copies them before it can work on them. Here each starts at a multiple of
64 bytes; ``scipy.sparse.load_npz`` reads the files all the same.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_ZIP64_FIELD_BYTES = 20
_PADDING_FIELD = 0xD935
"""The id that zipalign gave to an extra field of padding; readers skip what they do not know."""


def save_npz(path: Path, matrix: csr_matrix) -> None:
    """Writes a matrix, uncompressed.

    Raises:
        OSError: the file cannot be written.
    """
    members = {
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "format": np.array(b"csr"),
        "shape": np.array(matrix.shape),
        "data": matrix.data,
    }
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.extra = _padding(file.tell(), member.filename)
            with archive.open(member, "w", force_zip64=True) as content:
                np.lib.format.write_array(  # type: ignore[no-untyped-call]
                    content, array, allow_pickle=False
                )


def map_npz(path: Path) -> csr_matrix:
    """Opens a matrix of ``save_npz``, its arrays mapped into memory, read-only.

    Raises:
        OSError: the file cannot be read.
        ValueError: it was not written by ``save_npz``.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        arrays = {
            member.filename.removesuffix(".npy"): _map_member(file, member)
            for member in archive.infolist()
        }
    matrix = csr_matrix(
        (arrays["data"], arrays["indices"], arrays["indptr"]), arrays["shape"].tolist()
    )
    # Known of what preparation writes, and a scan of the whole matrix to find out.
    matrix.has_canonical_format = True
    return matrix


def _padding(offset: int, name: str) -> bytes:
    """An extra field that makes the content of a member at ``offset`` start aligned."""
    header = _LOCAL_HEADER_BYTES + len(name) + _ZIP64_FIELD_BYTES + 4
    length = -(offset + header) % _ALIGNMENT
    return struct.pack("<HH", _PADDING_FIELD, length) + bytes(length)


def _map_member(file: IO[bytes], member: zipfile.ZipInfo) -> NDArray[Any]:
    """An uncompressed ``.npy`` file inside of an archive, mapped into memory."""
    file.seek(member.header_offset)
    # The last two fields of the local header: how long the name and the extra field behind it are.
    name_length, extra_length = struct.unpack("<26xHH", file.read(_LOCAL_HEADER_BYTES))
    file.seek(name_length + extra_length, 1)
    np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds pickled objects")
    if not shape or 0 in shape:  # cannot be mapped
        return np.fromfile(file, dtype, int(np.prod(shape))).reshape(shape)
    return np.memmap(file, dtype, "r", file.tell(), shape)
