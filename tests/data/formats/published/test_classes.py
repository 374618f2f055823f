"""Labelled images as published: ImageNet's lists and folders of classes."""

import os

import pytest

from ape_jax.data.formats.published.class_folders import CLASS_FOLDERS
from ape_jax.data.formats.published.imagenet import LIST, SOLUTION
from ape_jax.errors import UserError


@pytest.mark.parametrize("header", ["", "filename label\n"])
@pytest.mark.parametrize("separator", [" ", "\t", ","])
def test_a_list_of_files_and_numbers(read, write, header, separator):
    lines = [f"ILSVRC2012_val_0000000{i}.JPEG{separator}{65 + i}\n" for i in (1, 2)]
    path = write("val.txt", header + "".join(lines))
    got = read(LIST, path, wanted="label")
    assert got.labels == [
        ("ILSVRC2012_val_00000001.JPEG", "66"),
        ("ILSVRC2012_val_00000002.JPEG", "67"),
    ]
    assert not got.broken


def test_a_list_of_files_and_wordnet_ids_with_a_bad_line(read, write):
    got = read(LIST, write("val.txt", "a b.JPEG n01440764\nno class\n"), wanted="label")
    assert got.labels == [("a b.JPEG", "n01440764")] and got.broken[0].at == "2"


def test_numbers_alone_say_what_to_take(read, write):
    path = write("ILSVRC2012_validation_ground_truth.txt", "490\n361\n")
    with pytest.raises(UserError, match=r"numbers of classes .* LOC_val_solution.csv"):
        read(LIST, path, wanted="label")


def test_the_solution_of_kaggle(read, write, tmp_path):
    text = (
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00048981,n03995372 85 1 499 272 \n"
        "n02017213_7894,n02017213 115 49 448 294 n02017213 1 2 3 4\n"
        "ILSVRC2012_val_00048982,\n"
    )
    got = read(SOLUTION, write("LOC_val_solution.csv", text), wanted="label")
    assert got.labels == [
        ("ILSVRC2012_val_00048981.JPEG", "n03995372"),
        (os.path.join("n02017213", "n02017213_7894.JPEG"), "n02017213"),
    ]
    assert [b.kind for b in got.broken] == ["damaged row"]
    assert str(tmp_path / "ILSVRC/Data/CLS-LOC/val") in got.file.base


def test_lists_have_no_captions(read, write):
    with pytest.raises(UserError, match="holds classes and no captions"):
        read(LIST, write("val.txt", "a.jpg 3\n"))


def test_folders_are_classes_and_what_is_not_read_is_said(read, draw, write, tmp_path):
    draw("d/tabby cat/2.png", "d/tabby cat/1.jpg", "d/dog/x/deep.png", "d/dog/3.JPEG")
    write("d/dog/notes.txt", "x")
    write("d/.hidden/1.png", "x")
    (tmp_path / "d/empty").mkdir()
    got = read(CLASS_FOLDERS, tmp_path / "d", wanted="label")
    assert got.labels == [
        ("dog/3.JPEG", 0), ("tabby cat/1.jpg", 1), ("tabby cat/2.png", 1),
    ]  # fmt: skip
    assert got.rows[0].fields["label_names"] == ["dog", "tabby cat"]
    assert "no images in the folders 'empty'" in got.said[0]
    assert "2 entries that are no images" in got.said[1]


def test_folders_called_by_numbers_are_these_numbers(read, draw, tmp_path):
    draw("d/10/1.png", "d/9/1.png")
    got = read(CLASS_FOLDERS, tmp_path / "d", wanted="label")
    assert got.labels == [("10/1.png", "10"), ("9/1.png", "9")]
    assert "label_names" not in got.rows[0].fields


def test_folders_of_classes_have_no_captions(read, draw, tmp_path):
    draw("d/dog/1.png")
    with pytest.raises(UserError, match="folders of classes and no captions"):
        read(CLASS_FOLDERS, tmp_path / "d")


def test_folders_of_other_kinds_are_not_taken(draw, write, tmp_path):
    draw("a/1.png", "a/sub/1.png", "b/sub/1.png", "c/sub/1.png", "e/train/1.png", "e/val/1.png")
    write("b/sub/1.txt", "a caption")
    write("c/metadata.csv", "file_name,text\n")
    (tmp_path / "d").mkdir()
    assert not any(CLASS_FOLDERS.matches(str(tmp_path / name)) for name in "abcde")
