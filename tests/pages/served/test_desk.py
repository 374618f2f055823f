"""What the page is given: the same as the model gives, and one sentence for what it cannot."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import ape_jax
from ape_jax.errors import UserError
from ape_jax.pages.served import desk as desk_lib


@pytest.fixture(scope="module")
def desk(tiny_run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APE_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield desk_lib.Desk(str(tiny_run))


def test_images_are_those_that_the_model_finds(desk, tiny_run, tiny):
    paths = [tiny / f"{c}-{s}.png" for c in ("red", "green") for s in ("bar", "circle")]
    paths = sorted(tiny.glob("*.png"))
    ((best, cosine), *_) = ape_jax.load(tiny_run).retrieve(["a red bar"], paths, k=1)[0]
    seen = desk.images_for(" a red bar\n", "shapes", 4)
    assert len(seen) == 4
    assert seen[0].words == f"{cosine:.2f} a {paths[best].stem.replace('-', ' ')}"
    np.testing.assert_array_equal(seen[0].picture, Image.open(paths[best]).convert("RGB"))


def test_images_like_an_image_begin_with_itself(desk, tiny):
    seen = desk.images_like(str(tiny / "blue-circle.png"), "shapes", 3)
    assert seen[0].words == "1.00 a blue circle" and len(seen) == 3


def test_examples_are_captions_of_the_run_and_an_image_has_its_own(desk):
    assert len(desk.examples) == 6 and set(desk.examples) <= set(desk._captions)
    picture, found = desk.example_image(4)
    assert picture.size == (40, 36) and len(found) == 4
    assert desk.report is not None and desk.report.name == "report.html"


def test_captions_stand_under_images_of_a_bare_folder(desk, tiny):
    name, _ = desk.take_folder(str(tiny))
    assert desk.images_for("a red bar", name, 2)[0].words.endswith(" a red bar")


def test_a_run_without_evaluation_pairs_shows_training_images(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_run, tmp_path / "run")
    record = tmp_path / "run/config.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "data.eval": {}}))
    alone = desk_lib.Desk(str(tmp_path / "run"))
    assert alone.collections == ["training images (24 of 24)"] and alone.examples


def test_captions_are_those_that_classify_chooses(desk, tiny_run, tiny):
    own = ["a red bar", "a blue circle", "a green square"]
    file = str(tiny / "blue-circle.png")
    picture, found = desk.captions_for(file, "\n".join([*own, "", own[0]]), 9)
    expected = ape_jax.load(tiny_run).classify([file], own)[0]
    assert picture.size == (40, 36) and [d.caption for d in found] == [
        own[i] for i in np.argsort(-expected)
    ]
    np.testing.assert_allclose([d.share for d in found], np.sort(expected)[::-1], atol=1e-5)


def test_without_own_captions_those_of_the_evaluation_are_taken(desk, tiny):
    _, found = desk.captions_for(str(tiny / "blue-circle.png"), "", 3)
    assert len(found) == 3 and all("a " in d.caption for d in found)
    assert len(desk._captions) == 48


def test_a_folder_becomes_a_collection_and_is_encoded_once(desk, tiny, tmp_path):
    Image.open(tiny / "red-bar.png").save(tmp_path / "mine.png")
    (tmp_path / "broken.jpg").write_bytes(b"PK\x03\x04")
    ticks = []
    name, report = desk.take_folder(f' "{tmp_path}" ', lambda *tick: ticks.append(tick))
    assert name in desk.collections and "1 images, 1 encoded" in report and "broken.jpg" in report
    assert ticks[-1] == (2, 2)
    assert desk.images_for("a red bar", name, 5)[0].words.endswith(" mine.png")
    assert "0 encoded, 1 kept" in desk.take_folder(str(tmp_path))[1]
    (tmp_path / "mine.png").unlink()
    assert "no longer readable" in desk.images_for("a red bar", name, 5)[0].words


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda d, p: d.images_for("", "shapes", 3), "no text yet"),
        (lambda d, p: d.images_for("x" * 10_000, "shapes", 3), "10000 characters; write at most"),
        (lambda d, p: d.images_for("a", None, 3), "index a folder first"),
        (lambda d, p: d.captions_for(None, "", 3), "no image yet"),
        (lambda d, p: d.images_like(None, "shapes", 3), "no image yet"),
        (lambda d, p: d.images_like(str(p / "zip.png"), "shapes", 3), "not an image"),
        (lambda d, p: d.captions_for(str(p / "zip.png"), "", 3), "zip.png: this is not an image"),
        (lambda d, p: d.captions_for(str(p / "zip.png"), "a\n" + "x" * 10_000, 3), "not an image"),
        (lambda d, p: d.take_folder(str(p / "nowhere")), "there is no folder"),
        (lambda d, p: d.take_folder(""), "found nothing"),
        (lambda d, p: d.take_folder("/" + "x" * 10_000), "no path"),
        (lambda d, p: d.take_folder(str(p / "empty")), "holds no image"),
    ],
)
def test_what_cannot_be_is_one_sentence(desk, tmp_path, ask, words):
    (tmp_path / "zip.png").write_bytes(b"PK\x03\x04 and more")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=words) as error:
        ask(desk, tmp_path)
    assert not re.search(r"\n|Traceback", str(error.value))


def test_own_captions_are_bounded():
    with pytest.raises(UserError, match="at most"):
        desk_lib.own_captions("\n".join(map(str, range(desk_lib.MOST_CAPTIONS + 1))))
    with pytest.raises(UserError, match="10000 characters"):
        desk_lib.own_captions("x" * 10_000)
