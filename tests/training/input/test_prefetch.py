"""Items made ahead: the same ones, errors in their place, no thread left behind."""

import threading
import time

import pytest

from ape_jax.training.input.prefetch import ahead


def running():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


def test_items_come_in_order_and_the_thread_ends():
    assert list(ahead(i * i for i in range(100))) == [i * i for i in range(100)]
    assert not running()


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        raise ValueError("no second item")

    made = ahead(items())
    assert next(made) == 1
    with pytest.raises(ValueError, match="no second item"):
        next(made)
    assert not running()


def test_no_more_than_the_depth_is_made_ahead():
    made = []
    items = ahead((made.append(i) for i in range(100)), depth=3)
    next(items)
    time.sleep(0.5)
    assert len(made) <= 5  # One taken, three that wait, one in the hand.
    items.close()


def test_closing_ends_the_thread_and_closes_the_items():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    made = ahead(items())
    next(made)
    made.close()
    assert closed.is_set() and not running()
