"""Confusions are counted as scikit-learn counts them."""

import numpy as np
from sklearn.metrics import confusion_matrix

from ape_jax.pages import confusion


def test_counts_are_scikit_learns(rng):
    labels, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    ours = confusion.confusion(labels, predicted, 6)  # One class without images.
    np.testing.assert_array_equal(ours, confusion_matrix(labels, predicted, labels=range(6)))


def test_of_many_classes_the_largest_confusions_are_named():
    counts = np.diag(np.full(30, 9))
    counts[3, 7], counts[2, 1] = 5, 6
    page = confusion._most_confused(counts, [f"c{i}" for i in range(30)])
    assert page.index("c2</td><td>c1</td><td>6") < page.index("c3</td><td>c7</td><td>5")
    assert page.count("<tr>") == 3
