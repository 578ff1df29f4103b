"""Matrices on the disk: SciPy's format, mapped into memory at aligned addresses."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from vae.load.npz import map_npz, save_npz

MATRICES = st.builds(
    lambda rows, columns, density, dtype, seed: sparse.random(
        rows, columns, density, "csr", dtype=dtype, random_state=seed
    ),
    rows=st.integers(0, 40),
    columns=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    seed=st.integers(0, 99),
)


def assert_equal(one, other):
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


@settings(max_examples=50, deadline=None)
@given(MATRICES)
def test_a_matrix_comes_back_equal_here_and_in_scipy(tmp_path_factory, matrix):
    path = tmp_path_factory.getbasetemp() / "matrix.npz"
    save_npz(path, matrix)
    assert_equal(map_npz(path), matrix)
    assert_equal(sparse.load_npz(path), matrix)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


@settings(max_examples=50, deadline=None)
@given(MATRICES)
def test_arrays_start_where_numpy_can_work_on_them_without_a_copy(tmp_path_factory, matrix):
    path = tmp_path_factory.getbasetemp() / "aligned.npz"
    save_npz(path, matrix)
    mapped = map_npz(path)
    for array in (mapped.data, mapped.indices, mapped.indptr):
        assert array.flags.aligned
        if array.size and not array.flags.owndata:
            assert array.ctypes.data % 64 == 0


def test_what_scipy_wrote_can_be_mapped_too(tmp_path):
    matrix = sparse.random(30, 20, 0.2, "csr", random_state=0)
    sparse.save_npz(tmp_path / "scipy.npz", matrix, compressed=False)
    assert_equal(map_npz(tmp_path / "scipy.npz"), matrix)


def test_two_writings_are_equal_byte_for_byte(tmp_path):
    matrix = sparse.random(30, 20, 0.2, "csr", random_state=0)
    for name in ("one.npz", "other.npz"):
        save_npz(tmp_path / name, matrix)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "pickle.npz", data=np.array([object()]))
    with pytest.raises(ValueError, match=r"data\.npy holds pickled objects"):
        map_npz(tmp_path / "pickle.npz")
