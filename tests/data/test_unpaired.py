"""Images and texts without partners: every form that they come in, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ape_jax.data import unpaired
from ape_jax.data.options import Reading
from ape_jax.errors import UserError


def names(images):
    return [pair.id for pair in images]


def test_a_folder_a_pattern_and_a_list_give_the_same_images(tiny, tmp_path):
    folder = unpaired.open_images(str(tiny))
    assert len(folder) == 24 and names(folder)[0] == "black-bar.png"
    pattern = unpaired.open_images(f"{tiny}/*.png")
    listed = tmp_path / "images.txt"
    listed.write_text("".join(f"{pair.image.content}\n\n" for pair in folder))
    contents = [[pair.image.content for pair in x] for x in (folder, pattern)]
    assert contents[0] == contents[1]
    assert [p.image.content for p in unpaired.open_images(str(listed))] == contents[0]
    assert all(pair.captions == () for pair in folder)


def test_paths_of_a_list_are_relative_to_its_folder(tiny, tmp_path):
    listed = tiny / "some.txt"
    listed.write_text("red-bar.png\nblue-bar.png\n")
    try:
        images = unpaired.open_images(str(listed))
    finally:
        listed.unlink()
    assert names(images) == ["red-bar.png", "blue-bar.png"]
    assert images[0].image.content == str(tiny / "red-bar.png")


def test_of_pairs_the_images_are_used_and_a_line_says_so(tiny, capsys):
    images = unpaired.open_images(str(tiny / "pairs.jsonl"))
    assert len(images) == 24 and images.digest
    assert "of" in (said := capsys.readouterr().err) and "24 images are used" in said


def test_several_sources_are_joined(tiny):
    images = unpaired.open_images(f"{tiny}/red-*.png::{tiny}/pairs.jsonl")
    assert len(images) == 4 + 24 and images[-1].captions == ()


def test_a_missing_image_is_named_with_its_line_or_left_out(tmp_path, tiny):
    listed = tmp_path / "images.txt"
    listed.write_text(f"{tiny}/red-bar.png\nnowhere.png\n")
    with pytest.raises(UserError, match=r"images.txt:2 \(nowhere.png\)"):
        unpaired.open_images(str(listed))
    loose = Reading(on_error="skip", max_skipped=0.5)
    assert len(unpaired.open_images(str(listed), reading=loose)) == 2


def test_digest_changes_with_an_image(tmp_path, tiny):
    (tmp_path / "a.png").write_bytes((tiny / "red-bar.png").read_bytes())
    before = unpaired.open_images(str(tmp_path)).digest
    assert unpaired.open_images(str(tmp_path)).digest == before
    (tmp_path / "a.png").write_bytes((tiny / "blue-bar.png").read_bytes())
    assert unpaired.open_images(str(tmp_path)).digest != before


@pytest.mark.parametrize("spec", ["nothing.txt", "nowhere/*.png", "a.png::weights=2"])
def test_images_that_are_not_there_are_refused(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.images"):
        unpaired.open_images(spec)


def test_vectors_are_no_images_and_no_texts(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.ones((2, 3), "f"), text=np.ones((2, 3), "f"))
    for opened in (unpaired.open_images, unpaired.open_texts):
        with pytest.raises(UserError, match="vectors"):
            opened(f"features:{tmp_path}/x.npz")


def write(folder, form, texts):
    path = folder / f"texts.{form}"
    if form == "txt":
        path.write_text("\ufeff" + "\n\n".join(texts) + "\n", encoding="utf-8")
    elif form == "csv":
        path.write_text("n,text\n" + "".join(f'1,"{x}"\n' for x in texts), encoding="utf-8")
    elif form == "jsonl":
        path.write_text("".join(json.dumps({"title": x, "n": 1}) + "\n" for x in texts))
    else:
        pq.write_table(pa.table({"caption": texts, "n": [1] * len(texts)}), path)
    return str(path)


@pytest.mark.parametrize("form", ["txt", "csv", "jsonl", "parquet"])
def test_texts_of_every_form(form, tmp_path):
    texts = ["a cat", " ein Käter, alt ", "a cat", "猫"]
    found = unpaired.open_texts(write(tmp_path, form, texts))
    assert found.texts == ("a cat", "ein Käter, alt", "猫")


def test_the_digest_of_texts_depends_on_texts_alone(tmp_path):
    txt, csv = (write(tmp_path, form, ["a", "b"]) for form in ("txt", "csv"))
    assert unpaired.open_texts(txt).digest == unpaired.open_texts(csv).digest
    assert unpaired.open_texts(f"{txt}::{csv}").digest == unpaired.open_texts(csv).digest
    assert (
        unpaired.open_texts(write(tmp_path, "txt", ["ab"])).digest
        != unpaired.open_texts(csv).digest
    )


def test_of_pairs_the_captions_are_used(tiny, capsys):
    found = unpaired.open_texts(str(tiny / "pairs.jsonl"))
    assert len(found) == 48 and found.texts[0] == "a red square"
    assert "texts from 'captions'" in capsys.readouterr().err


def test_a_column_can_be_named(tmp_path):
    (tmp_path / "x.csv").write_text("sku,words\n1,a cat\n2,a dog\n")
    path = str(tmp_path / "x.csv")
    found = unpaired.open_texts(path, reading=Reading(columns={"captions": ("words",)}))
    assert found.texts == ("a cat", "a dog")
    with pytest.raises(UserError, match="'sku', 'words'"):
        unpaired.open_texts(path)


def test_a_row_without_text_ends_the_run_or_is_left_out(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text('{"text": "a cat"}\n{"text": null}\n')
    path = str(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match=r"x\.jsonl:2"):
        unpaired.open_texts(path)
    with pytest.raises(UserError, match="max_skipped"):
        unpaired.open_texts(path, reading=Reading(on_error="skip"))
    loose = Reading(on_error="skip", max_skipped=0.5)
    assert unpaired.open_texts(path, reading=loose).texts == ("a cat",)
    assert "left out 1 of 2 texts" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\xff\n"])
def test_texts_that_are_none_are_refused(content, tmp_path):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.txt"):
        unpaired.open_texts(str(tmp_path / "x.txt"))
