"""A data set's own class names as prose, against the tables of clip_benchmark."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from ape_jax.data.classes.names import as_prose
from ape_jax.errors import UserError


def own_names(name, tmp_path):
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=str(tmp_path), try_gcs=False)
    return builder.info.features["label"].names


def table(name):
    (folder,) = find_spec("clip_benchmark").submodule_search_locations
    return json.loads((Path(folder) / "datasets/en_classnames.json").read_text())[name]


def letters(name):
    return "".join(c for c in name.casefold() if c.isalnum())


@pytest.mark.parametrize(
    ("name", "theirs", "reworded"),
    [
        ("oxford_iiit_pet", "pets", 0),
        ("imagenet_v2", "imagenet1k", 0),
        ("oxford_flowers102", "flowers", 2),  # "ball moss" is "air plant" there
        ("caltech101", "caltech101_vtab", 13),  # "crocodile head" is "head of a crocodile" there
    ],
)
def test_names_of_a_builder_are_those_of_clip_benchmark_in_order(name, theirs, reworded, tmp_path):
    ours = [letters(n) for n in as_prose(own_names(name, tmp_path), where=name)]
    names = [letters(n) for n in table(theirs)]
    different = [(a, b) for a, b in zip(ours, names, strict=True) if a != b]
    assert len(different) == reworded
    assert not {b for _, b in different} & set(ours)


def test_a_part_of_imagenet_has_the_names_of_its_own_ids(tmp_path):
    ours = as_prose(own_names("imagenette", tmp_path), where="imagenette")
    assert (ours[0], ours[-1], len(ours)) == ("tench", "parachute", 10)


def test_other_sets_read_as_prose(tmp_path):
    found = {n: as_prose(own_names(n, tmp_path), where=n) for n in ("eurosat", "sun397", "food101")}
    assert found["eurosat"][:3] == ("annual crop", "forest", "herbaceous vegetation")
    assert found["sun397"][8] == "apartment building outdoor"
    assert found["food101"][:2] == ("apple pie", "baby back ribs")


def test_capitals_within_a_name_part_it_only_where_all_names_are_so_written():
    assert as_prose(["McDonald", "the_Louvre"], where="x") == ("McDonald", "the Louvre")


@pytest.mark.parametrize(
    ("names", "words"),
    [(["0", "1"], "numbers its 2 classes"), (["n01440764", "n99999999"], "n99999999 is none")],
)
def test_what_is_no_name_is_refused(names, words):
    with pytest.raises(UserError, match=rf"--data: 'tfds:x:test' .*{words}.*--classnames"):
        as_prose(names, where="--data: 'tfds:x:test'")


def test_ten_digits_are_names():
    digits = [str(i) for i in range(10)]
    assert as_prose(digits, where="mnist") == tuple(digits)
