"""Rows of several files read as those of one array, by the rows that are asked for."""

import ml_dtypes
import numpy as np
import pytest

from ape_jax.storage.row_array import Joined, RowArray


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(2, 9),
        slice(8, 1, -2),
        slice(50, 60),
        np.array([], int),
        np.array([11, 0, 4, 4, 7]),
        np.array([-1, 3]),
        np.arange(3, 8),
        np.arange(12) % 3 == 0,
    ],
)
def test_rows_are_those_of_the_parts_end_to_end(rng, index):
    parts = [rng.normal(size=(n, 2, 3)).astype(ml_dtypes.bfloat16) for n in (5, 0, 4, 3)]
    rows, whole = Joined(parts, np.float32), np.concatenate(parts).astype(np.float32)
    np.testing.assert_array_equal(rows[index], whole[index])
    assert rows[index].dtype == np.float32
    assert (rows.shape, rows.nbytes, len(rows)) == (whole.shape, whole.nbytes, len(whole))


def test_rows_of_mapped_files_are_copies(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(3, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = Joined([mapped])[0:2]
    found[:] = 0  # A view of the read-only map would refuse this.
    assert mapped[1, 1] == 3


def test_rows_behind_the_end_are_refused():
    with pytest.raises(IndexError, match="3 rows"):
        Joined([np.zeros((3, 2))])[np.array([3])]


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 shapes or types"):
        Joined([np.zeros((3, 2)), np.zeros((3, 2), np.float32)])


def test_arrays_in_memory_and_on_disk_are_row_arrays():
    assert all(isinstance(x, RowArray) for x in (np.zeros(3), Joined([np.zeros((1, 2))])))
    assert not isinstance([1.0], RowArray)
