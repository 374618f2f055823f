"""Unpaired data need what encodes them and something that uses them."""

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError

GOOD = {
    "image.tower": "demo:vit_s14",
    "text.tower": "demo:minilm",
    "data.pairs": "x.jsonl",
    "data.images": "photos",
    "data.texts": "x.txt",
    "image.head.name": "linear",
    "text.head.name": "linear",
    "start.method": "cca",
    "unpaired.klot": 1.0,
}
# Closed forms have rules of their own for what is encoded.
NOT_SOLVED = {"start__method": "none", "unpaired__klot": 0.0}


def resolve(**changes):
    flat = {**config_lib.flatten(config_lib.default()), **GOOD}
    return config_lib.resolve({**flat, **{k.replace("__", "."): v for k, v in changes.items()}})


def test_klot_with_all_that_it_needs_is_taken():
    assert resolve().unpaired.klot == 1.0


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"data__images": ""}, "unpaired.klot"),
        ({"unpaired__klot": 0.0}, "data.images"),
        ({"start__method": "none"}, "unpaired.klot"),
        ({"method": "cca", "start__method": "none"}, "unpaired.klot"),
        (NOT_SOLVED | {"image__tune": "full", "image__standardize": False}, "data.images"),
        (NOT_SOLVED | {"text__tune": "full"}, "data.texts"),
        ({"unpaired__match": 1.0, "unpaired__klot": 0.0, "data__texts": ""}, "unpaired.match"),
        ({"unpaired__match": 1.0, "start__method": "procrustes"}, "unpaired.match"),
        ({"unpaired__structure": True}, "unpaired.structure"),
        ({"unpaired__match_rounds": 2}, "unpaired.match_rounds"),
        (NOT_SOLVED | {"cache__views": 0}, "data.images"),
        (NOT_SOLVED | {"cache__text": False}, "data.texts"),
        ({"data__images": "features:x.npz"}, "data.images"),
        ({"unpaired__statistics": True, "image__standardize": False}, "unpaired.statistics"),
        ({"unpaired__klot": 0.0, "data__images": "", "data__texts": ""} | {"unpaired__eps": 0.1},
         "unpaired.eps"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(changes, key):
    with pytest.raises(UserError, match=rf"config\.{key}"):
        resolve(**changes)


def test_images_alone_can_serve_statistics():
    config = resolve(data__texts="", unpaired__klot=0.0, unpaired__statistics=True)
    assert config.data.images == "photos"
