"""What is read by rows, and what is not."""

import numpy as np

from ape_jax.storage.row_array import RowArray
from ape_jax.storage.rows.mapped import MappedRows


def test_arrays_in_memory_and_in_files_are_row_arrays():
    assert all(isinstance(x, RowArray) for x in (np.zeros(3), MappedRows([], (2,), np.dtype("f4"))))
    assert not isinstance([1.0], RowArray)
