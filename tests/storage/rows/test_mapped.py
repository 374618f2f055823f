"""Rows of files: what an array in memory gives, read by rows."""

import os
import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ape_jax.errors import UserError
from ape_jax.storage.rows import access
from ape_jax.storage.rows.mapped import MappedRows, Part

WIDTHS = (7, 1, 0, 12, 5)  # Rows of each file.


@pytest.fixture(scope="module", params=[np.float32, ml_dtypes.bfloat16, np.int32])
def both(request, tmp_path_factory):
    """An array [25, 3, 4], and the same rows in files with bytes before and behind them."""
    folder, rng = tmp_path_factory.mktemp("mapped"), np.random.default_rng(0)
    whole = rng.normal(size=(sum(WIDTHS), 3, 4), scale=100).astype(request.param)
    parts, done = [], 0
    for k, count in enumerate(WIDTHS):
        rows = whole[done : done + count]
        (folder / f"{k}").write_bytes(b"head" * (2 * k) + rows.tobytes() + b"tail")
        parts.append(Part(folder / f"{k}", count, 8 * k))
        done += count
    return whole, MappedRows(parts, (3, 4), whole.dtype)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-25, 24), max_size=40), st.slices(25))
def test_rows_are_those_of_an_array(both, index, slice_):
    whole, rows = both
    assert same(rows[np.array(index, int)], whole[np.array(index, int)])
    assert same(rows[slice_], whole[slice_])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=12))
def test_runs_of_rows_are_taken_into_an_array(both, runs):
    whole, rows = both
    index = np.array([start + i for start, count in runs for i in range(count)], int)
    out = np.zeros((len(index), 3, 4), whole.dtype)
    assert rows.take(index, axis=0, out=out, mode="clip") is out
    assert same(out, whole[index])


@pytest.mark.parametrize("stored", ["<f2", ">f4", "<f8"])
def test_rows_are_converted_as_they_are_read(tmp_path, stored):
    whole = np.random.default_rng(1).normal(size=(9, 2, 3)).astype(stored)
    (tmp_path / "x").write_bytes(b"head" + whole.tobytes())
    parts = [Part(tmp_path / "x", 5, 4), Part(tmp_path / "x", 4, 4 + 5 * whole[0].nbytes)]
    rows = MappedRows(parts, (2, 3), np.dtype(stored), np.dtype(np.float32))
    expected = whole.astype(np.float32)
    assert same(rows[2:8], expected[2:8]) and same(rows.read(), expected)
    assert same(rows[np.array([8, 0, 3])], expected[np.array([8, 0, 3])])
    assert same(rows[np.array([8, 1]), 1], expected[np.array([8, 1]), 1])
    assert same(pickle.loads(pickle.dumps(rows))[:], expected)
    assert rows.nbytes == expected.nbytes


def test_rows_and_places_are_chosen_together(both):
    whole, rows = both
    index, place = np.array([[3, 24], [0, 3]]), np.array([[2, 0], [1, 1]])
    assert same(rows[index, place], whole[index, place])
    assert same(rows[index, 1], whole[index, 1])
    assert same(rows.places[np.arange(75)], whole.reshape(75, 4))


def test_sizes_are_those_of_an_array(both):
    whole, rows = both
    assert (rows.shape, rows.dtype, rows.ndim) == (whole.shape, whole.dtype, whole.ndim)
    assert (len(rows), rows.nbytes) == (len(whole), whole.nbytes)


def test_all_rows_are_read_into_memory_that_a_device_can_use(both):
    whole, rows = both
    assert same(rows.read(), whole) and same(np.asarray(rows), whole)
    assert rows.read().ctypes.data % 64 == 0
    assert same(access.in_memory(rows), whole) and access.in_memory(whole) is whole


def test_chosen_rows_stay_in_their_files(both):
    whole, rows = both
    index = np.array([20, 3, 4, 5, 6, 3])
    chosen, ours = access.choose(rows, index), whole[index]
    assert (chosen.shape, chosen.nbytes, chosen.ndim) == (ours.shape, ours.nbytes, 3)
    assert same(chosen[1:4], ours[1:4]) and same(chosen[np.array([5, -6])], ours[[5, -6]])
    assert same(chosen[np.array([5, 0]), np.array([1, 2])], ours[[5, 0], [1, 2]])
    assert same(chosen.choose(np.array([4, 0])).read(), ours[[4, 0]])
    assert same(chosen.take(np.array([1, 1, 0])), ours[[1, 1, 0]])
    assert same(np.asarray(access.choose(rows, index)), access.choose(whole, index))


def test_row_that_there_is_not_is_an_error(both):
    _, rows = both
    for index in ([25], [-26], [0, 99]):
        with pytest.raises(IndexError, match="of 25 were asked for"):
            rows[np.array(index)]
    with pytest.raises(TypeError, match="integers, found bool"):
        rows[np.ones(25, bool)]


def test_no_file_stays_open_and_another_process_maps_for_itself(both):
    whole, rows = both
    opened = len(os.listdir("/proc/self/fd"))
    again = pickle.loads(pickle.dumps(rows))
    assert same(again[:], whole)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_file_that_is_gone_or_became_shorter_is_one_sentence(tmp_path):
    path = tmp_path / "a"
    rows = MappedRows([Part(path, 4)], (2,), np.dtype("<f4"))
    with pytest.raises(UserError, match=r"features: \S+/a cannot be read \(.*No such file"):
        rows[:]
    path.write_bytes(bytes(31))
    for read in (rows.read, lambda: rows[:2]):
        with pytest.raises(UserError, match=r"features: \S+/a is shorter than it was"):
            read()


def test_no_rows_are_an_empty_array():
    rows = MappedRows([], (2, 3), np.dtype(np.float32))
    assert same(rows[:], np.zeros((0, 2, 3), np.float32)) and same(rows.read(), rows[:])
