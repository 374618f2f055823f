"""Karpathy's splits."""

import pytest

from ape_jax.data.formats.published.karpathy import KARPATHY
from ape_jax.errors import UserError


def image(number: int, split: str, folder: str | None = "val2014") -> dict:
    sentences = [
        {"tokens": ["a"], "raw": f"A cat, {number}.", "imgid": number, "sentid": number},
        {"tokens": ["b"], "raw": f"The tabby {number}.", "imgid": number, "sentid": number + 9},
    ]
    found = {"sentids": [1], "filename": f"{number}.jpg", "imgid": number, "split": split}
    return {**({"filepath": folder} if folder else {}), **found, "sentences": sentences}


SPLITS = ("test", "restval", "train", "val", "test")
COCO_FILE = {"images": [image(i, split) for i, split in enumerate(SPLITS)], "dataset": "coco"}


def test_a_split_has_its_images_with_all_sentences(read, write):
    got = read(KARPATHY, write("dataset_coco.json", COCO_FILE), part="test")
    assert got.pairs == [
        ("val2014/0.jpg", ["A cat, 0.", "The tabby 0."]),
        ("val2014/4.jpg", ["A cat, 4.", "The tabby 4."]),
    ]
    assert not got.said and got.file.named


def test_without_a_split_all_are_read_and_counted(read, write):
    got = read(KARPATHY, write("dataset_coco.json", COCO_FILE))
    assert len(got.rows) == 5
    assert "all splits are read (test 2, restval 1, train 1, val 1)" in got.said[0]


def test_restval_is_said_beside_train(read, write):
    path = write("dataset_coco.json", COCO_FILE)
    got = read(KARPATHY, path, part="train")
    assert [name for name, _ in got.pairs] == ["val2014/2.jpg"] and "restval" in got.said[0]
    both = read(KARPATHY, path, part="train+restval")
    assert [name for name, _ in both.pairs] == ["val2014/1.jpg", "val2014/2.jpg"] and not both.said


def test_flickr_has_no_folder(read, write):
    document = {"images": [image(0, "val", None)], "dataset": "flickr30k"}
    got = read(KARPATHY, write("dataset_flickr30k.json", document))
    assert got.pairs[0][0] == "0.jpg" and not got.said
    assert any(folder.endswith("flickr30k-images") for folder in got.file.base)


def test_an_unknown_split_names_those_that_there_are(read, write):
    with pytest.raises(UserError, match="no split 'tests'; write one of 'restval', 'test'"):
        read(KARPATHY, write("dataset_coco.json", COCO_FILE), part="tests")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ("x", "damaged row"),
        ({**image(9, "test"), "filename": None}, "no image"),
        ({**image(9, "test"), "sentences": "a cat"}, "damaged row"),
        ({**image(9, "test"), "sentences": ["a cat"]}, "damaged row"),
    ],
)
def test_a_bad_image_is_named_and_the_others_are_read(read, write, bad, kind):
    got = read(KARPATHY, write("d.json", {"images": [*COCO_FILE["images"], bad]}))
    assert len(got.rows) == 5 and [(b.at, b.kind) for b in got.broken] == [("images[5]", kind)]


def test_a_sentence_without_text_is_left_to_the_check_of_captions(read, write):
    bad = {**image(9, "test"), "sentences": [{"tokens": ["a"]}, {"raw": "b"}]}
    got = read(KARPATHY, write("d.json", {"images": [COCO_FILE["images"][0], bad]}))
    assert got.pairs[1][1] == [None, "b"]
