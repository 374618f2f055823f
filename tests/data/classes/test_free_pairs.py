"""Names of classes as the captions of a classifier's rows: counted, checked, and nothing silent."""

import numpy as np
import pytest

from ape_jax.data.classes import free_pairs
from ape_jax.errors import UserError
from ape_jax.towers.classifier import Classifier


def made(rng, count, labels=None):
    rows = rng.normal(size=(count, 4)).astype(np.float32)
    how = {"pooling": "cls", "own_pooling": "cls"}
    return Classifier(spec="tower", rows=rows, labels=labels, **how)


def test_names_of_one_label_are_several_captions_of_its_row(rng, capsys):
    found = made(rng, 4)
    labels = ["tench, Tinca tinca", "", "crane , crane", "Tinca tinca,hoist"]
    pairs = free_pairs.of(found, labels, "names.txt")
    assert pairs.names == ("tench", "Tinca tinca", "crane", "hoist")
    assert pairs.row_index.tolist() == [0, 0, 1, 2, 2]
    assert pairs.name_index.tolist() == [0, 1, 2, 1, 3]
    np.testing.assert_array_equal(pairs.rows, found.rows[[0, 2, 3]])
    np.testing.assert_allclose(pairs.mean, found.rows.mean(axis=0), rtol=1e-6)
    said = capsys.readouterr().err
    assert "5 free pairs, 4 names (names.txt) of 3 classes of tower" in said
    assert "1 classes without a name, 1 names that their class has already" in said


def test_the_digest_is_of_rows_and_names(rng):
    found = made(rng, 3)
    digest = free_pairs.of(found, ["a", "b", "c"], "x").digest
    assert digest == free_pairs.of(found, ["a", "b", "c"], "y").digest
    assert digest != free_pairs.of(found, ["a", "c", "b"], "x").digest
    assert digest != free_pairs.of(made(rng, 3), ["a", "b", "c"], "x").digest


def test_a_file_names_a_class_a_line(rng, tmp_path, monkeypatch):
    labels = ("first", "second", "third")
    monkeypatch.setattr(free_pairs.classifier, "read", lambda spec: made(rng, 3, labels))
    assert free_pairs.open_free_pairs("tower").names == labels
    file = tmp_path / "names.txt"
    file.write_text("red_square, red box\n\n猫\n", "utf-8")
    assert free_pairs.open_free_pairs("tower", str(file)).names == ("red square", "red box", "猫")


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "there is no file"),
        (b"one\ntwo\n", "has 2 lines, and the classifier has 3 rows"),
        (b"\n\nthree\n", "names 1 of 3 classes"),
        (b"one\n\xff\nthree\n", "not UTF-8"),
        (b"one\n" + b"x" * 3000 + b"\nthree\n", "names.txt:2 has more than"),
        (b"one\none\none\n", "names 3 of 3 classes, by 1 different names"),
        (b"0\n1\n2\n", "numbers its 3 classes .*with classifier.names"),
    ],
)
def test_a_file_that_does_not_name_the_rows_is_refused(rng, tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(free_pairs.classifier, "read", lambda spec: made(rng, 3))
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=words):
        free_pairs.open_free_pairs("tower", str(file))


def test_a_tower_whose_files_name_no_class_asks_for_names(rng, monkeypatch):
    monkeypatch.setattr(free_pairs.classifier, "read", lambda spec: made(rng, 3))
    with pytest.raises(UserError, match=r"config\.classifier\.names: .*do not name the 3 classes"):
        free_pairs.open_free_pairs("tower")
