"""Holding out images: which, that no copy is on both sides, and that it does not change."""

import json
import shutil

import pytest

from ape_jax.data import split
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError


def parts(spec, share=0.25, seed=0):
    made = [
        split.Part(which=w, share=share, seed=seed, spec=str(spec)) for w in ("held-out", "rest")
    ]
    return [open_pairs(str(part)) for part in made]


def test_parts_are_all_of_it_and_have_nothing_in_common(tiny):
    held, rest = parts(tiny / "pairs.jsonl")
    assert (len(held), len(rest)) == (6, 18)
    assert {p.id for p in held} | {p.id for p in rest} == {
        p.id for p in open_pairs(tiny / "pairs.jsonl")
    }
    assert [p.id for p in parts(tiny / "pairs.jsonl")[0]] == [p.id for p in held]
    assert [p.id for p in parts(tiny / "pairs.jsonl", seed=1)[0]] != [p.id for p in held]


def test_copies_of_an_image_are_on_one_side(tiny, tmp_path):
    lines = []
    for i, pair in enumerate(open_pairs(tiny / "pairs.jsonl")):
        for copy in range(1 + i % 3):
            shutil.copy(pair.image.content, tmp_path / f"{i}-{copy}.png")
            lines.append({"image": f"{i}-{copy}.png", "caption": f"{i} {copy}"})
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for seed in range(5):
        held, rest = parts(tmp_path / "p.jsonl", seed=seed)
        assert 6 <= len(held) <= 12
        assert not set(held.image_hashes) & set(rest.image_hashes)


@pytest.mark.parametrize(
    "spec", ["part:", "part:half:0.1:0:x", "part:rest:2:0:x", "part:rest:x:0:y"]
)
def test_a_part_that_is_none_is_one_sentence(spec):
    with pytest.raises(UserError, match="write part:held-out:SHARE:SEED:SPEC"):
        open_pairs(spec)


def test_too_few_images_are_one_sentence(tiny, tmp_path):
    image = next(tiny.glob("*.png"))
    (tmp_path / "p.jsonl").write_text(json.dumps({"image": str(image), "caption": "x"}))
    with pytest.raises(UserError, match="holds 1 images, too few"):
        parts(tmp_path / "p.jsonl")
