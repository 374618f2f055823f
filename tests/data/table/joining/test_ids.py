"""Ids of images: an id that a row gives never splits an image."""

import pytest

from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError


def test_a_running_id_is_the_captions_and_never_splits_an_image(folder, capsys, write, made):
    rows = [("a.png", "x", 0), ("b.png", "y", 1), ("a.png", "z", 2)]
    assert made(write(folder / "p.jsonl", rows)) == [
        ("a.png", ("x", "z")),
        ("b.png", ("y",)),
    ]
    said = capsys.readouterr().err
    assert said.count("ids differ among the captions of one image (3 ids, 2 images)") == 1


def test_an_id_of_the_image_names_it(folder, write, made):
    rows = [("a.png", "x", None), ("b.png", "y", "B"), ("a.png", "z", "A"), ("c.png", "w", None)]
    found = made(write(folder / "p.jsonl", rows))
    assert found == [("A", ("x", "z")), ("B", ("y",)), ("c.png", ("w",))]


def test_equal_ids_of_two_images_in_a_file_are_refused(folder, write):
    rows = [("a.png", "x", "1"), ("b.png", "y", "1")]
    with pytest.raises(UserError, match=r"p\.jsonl:2: the id '1' is also .* at .*p\.jsonl:1"):
        open_pairs(write(folder / "p.jsonl", rows))


def test_equal_ids_in_several_files_are_different_images(folder, capsys, write, made):
    write(folder / "p.jsonl", [("a.png", "x", "1")])
    write(folder / "q.jsonl", [("b.png", "y", "1"), ("c.png", "z", "2")])
    found = made(str(folder / "{p,q}.jsonl"))
    assert found == [("p.jsonl:1", ("x",)), ("q.jsonl:1", ("y",)), ("q.jsonl:2", ("z",))]
    assert "equal ids in different files" in capsys.readouterr().err
