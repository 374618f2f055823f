"""Decoding in threads: the order, the batches and the bounded lookahead."""

import numpy as np
import pytest

from ape_jax.errors import UserError
from ape_jax.images.batches import decoded_batches


def prepared(i):
    if i == 7:
        raise UserError("seven cannot be read")
    return np.full((2, 2, 3), i, np.float32)


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_batches_come_in_order(count):
    batches = list(decoded_batches(range(count), prepared, rows=4, workers=3))
    assert [int(x[0, 0, 0]) for batch in batches for x in batch] == list(range(count))
    assert all(len(batch) == 4 for batch in batches[:-1])


def test_a_stream_is_read_a_bounded_number_ahead():
    read = []

    def endless():
        while True:
            read.append(0)
            yield 1

    batches = decoded_batches(endless(), prepared, rows=4, workers=2)
    next(batches)
    assert len(read) <= 4 + 2 * 4 + 2 * 2
    batches.close()


def test_an_error_comes_in_its_place():
    batches = decoded_batches(range(9), prepared, rows=2, workers=4)
    assert [len(next(batches)) for _ in range(3)] == [2, 2, 2]
    with pytest.raises(UserError, match="seven"):
        next(batches)
