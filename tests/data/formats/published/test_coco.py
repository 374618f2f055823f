"""COCO's annotations: images by their ids, whatever the captions' ids are."""

import os

import pytest

from ape_jax.data.formats.published.coco import COCO
from ape_jax.errors import UserError

IMAGES = [
    {"id": 391895, "file_name": "000000391895.jpg", "coco_url": "http://x/train2017/391895.jpg"},
    {"id": 522418, "file_name": "000000522418.jpg", "width": 640},
]
CAPTIONS = [
    {"image_id": 391895, "id": 770337, "caption": "A man with a red helmet."},
    {"image_id": 522418, "id": 681330, "caption": "A woman cutting a cake."},
    {"image_id": 391895, "id": 771687, "caption": "Man riding a motor bike."},
]
ROWS = [
    ("000000391895.jpg", "A man with a red helmet."),
    ("000000522418.jpg", "A woman cutting a cake."),
    ("000000391895.jpg", "Man riding a motor bike."),
]


def document(images=IMAGES, annotations=CAPTIONS, **others):
    return {"info": {"year": 2017}, "licenses": [], "images": images, **others} | {
        "annotations": annotations
    }


def test_a_row_a_caption_without_the_caption_s_id(read, write):
    got = read(COCO, write("annotations/captions_train2017.json", document()))
    assert got.pairs == ROWS and got.file.named and not got.broken and not got.said
    assert all(set(row.fields) == {"image", "captions"} for row in got.rows)
    assert got.rows[2].at == "annotations[2]"


def test_captions_before_the_images_are_the_same(read, write):
    turned = {"annotations": CAPTIONS, "images": IMAGES}
    assert read(COCO, write("a.json", turned)).pairs == ROWS


def test_folders_of_images_are_those_of_the_data_set_as_it_is_unpacked(read, write, tmp_path):
    got = read(COCO, write("annotations/captions_val2014.json", document()))
    places = {os.path.relpath(folder, tmp_path) for folder in got.file.base}
    assert {"annotations", "annotations/images", "val2014", "images/val2014", "images"} <= places
    assert "train2017" in places  # Out of the address of the first image.


def test_ids_may_be_text_or_numbers_written_as_text(read, write):
    images = [{"id": "7", "file_name": "a.jpg"}, {"id": "x/ü", "file_name": "ü.jpg"}]
    captions = [{"image_id": 7, "caption": "a"}, {"image_id": "x/ü", "caption": "b"}]
    got = read(COCO, write("a.json", document(images, captions)))
    assert got.pairs == [("a.jpg", "a"), ("ü.jpg", "b")]


def test_images_without_captions_are_counted(read, write):
    got = read(COCO, write("a.json", document(annotations=CAPTIONS[:1])))
    assert got.pairs == ROWS[:1] and got.said[0].endswith("1 image of 2 without a caption left out")


@pytest.mark.parametrize(
    ("annotation", "kind", "words"),
    [
        ({"image_id": 3, "caption": "x"}, "no image", "image_id 3 is none of the images"),
        ({"caption": "x"}, "no image", "image_id None"),
        ({"image_id": [1], "caption": "x"}, "no image", "[1]"),
        ({"image_id": True, "caption": "x"}, "no image", "True"),
        ({"image_id": 10**30, "caption": "x"}, "no image", "1000"),
        ({"image_id": 522418}, "empty caption", "no 'caption'"),
        ("x", "damaged row", "'x'"),
        (None, "damaged row", "None"),
    ],
)
def test_a_bad_annotation_is_named_and_the_others_are_read(read, write, annotation, kind, words):
    got = read(COCO, write("a.json", document(annotations=[*CAPTIONS, annotation])))
    assert got.pairs == ROWS
    assert [(b.at, b.kind) for b in got.broken] == [("annotations[3]", kind)]
    assert words in got.broken[0].reason


@pytest.mark.parametrize(
    "image", ["x", {"id": 5}, {"file_name": "x.jpg"}, {"id": 5, "file_name": 6}]
)
def test_a_bad_image_is_named_and_the_others_are_read(read, write, image):
    got = read(COCO, write("a.json", document([*IMAGES, image])))
    assert got.pairs == ROWS and got.broken[0].at == "images[2]"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (document(annotations=[{"image_id": 391895, "bbox": [0, 0, 1, 1]}]), "objects, without"),
        ({"images": IMAGES, "licenses": []}, "no 'annotations' in it"),
        (document(annotations=[]), "no 'annotations' in it"),
        ({"annotations": CAPTIONS}, "no 'images' in it"),
    ],
)
def test_files_without_captions_say_which_file_has_them(read, write, content, words):
    with pytest.raises(UserError, match=words):
        read(COCO, write("instances_train2017.json", content))


def test_labels_and_splits_are_refused(read, write):
    with pytest.raises(UserError, match="captions and no labels"):
        read(COCO, write("a.json", document()), wanted="label")
    with pytest.raises(UserError, match="no splits, found 'test'"):
        read(COCO, write("a.json", document()), part="test")
