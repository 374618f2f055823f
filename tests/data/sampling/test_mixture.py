"""Mixtures: sources that come more often than others."""

import numpy as np
import pytest

from ape_jax.data.sampling import Order, WeightedOrder, order_of


def counts(order, n: int, epochs: int, slots: int) -> np.ndarray:
    return np.bincount(order.lookup(np.arange(epochs * slots)), minlength=n)


def test_whole_weights_are_copies_in_every_epoch():
    weights = np.array([1.0] * 5 + [3.0] * 4)
    order = WeightedOrder(weights, 0)
    for epoch in range(3):
        found = np.bincount(order.lookup(17 * epoch + np.arange(17)))
        np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize("weight", [0.25, 1.5, 2.75])
def test_a_fraction_is_another_share_of_the_records_in_each_epoch(weight):
    weights = np.array([1.0] * 10 + [weight] * 40)
    slots = 10 + round(40 * weight)
    order, epochs = WeightedOrder(weights, 3), 200
    found = counts(order, 50, epochs, slots) / epochs
    np.testing.assert_array_equal(found[:10], 1)
    assert found[10:].sum() == pytest.approx(40 * weight)
    # Binomial: four standard deviations of a record's mean over epochs.
    rest = weight % 1
    np.testing.assert_allclose(found[10:], weight, atol=4 * np.sqrt(rest * (1 - rest) / epochs))


def test_shares_of_a_batch_are_by_weight_and_number():
    weights = np.repeat([2.0, 1.0], [300, 1200])
    order = WeightedOrder(weights, 0)
    first = (order.lookup(np.arange(100 * 64)) < 300).reshape(100, 64).mean()
    assert first == pytest.approx(600 / 1800, abs=0.02)


def test_any_position_is_found_by_itself():
    order = WeightedOrder(np.array([0.5, 0.5, 0.5, 1.0, 1.5, 1.5]), 7)
    whole = order.lookup(np.arange(100))
    again = WeightedOrder(np.array([0.5, 0.5, 0.5, 1.0, 1.5, 1.5]), 7)
    np.testing.assert_array_equal(whole[37:61], again.lookup(np.arange(37, 61)))
    assert [again.at(i) for i in (99, 3, 50)] == whole[[99, 3, 50]].tolist()


def test_a_source_of_little_weight_still_comes():
    assert (counts(WeightedOrder(np.array([0.001, 1.0]), 0), 2, 4, 2) > 0).all()


def test_without_weights_the_order_is_as_it_was():
    order = order_of([None] * 10, 0)
    assert isinstance(order, Order)
    np.testing.assert_array_equal(order.lookup(np.arange(30)), Order(10, 0).lookup(np.arange(30)))
