"""Free pairs need a tower that stays as it is, read where its classifier reads it."""

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError

GOOD = {
    "image.tower": "hf:google/vit-base-patch16-224",
    "text.tower": "demo:minilm",
    "data.pairs": "x.jsonl",
    "image.head.name": "linear",
    "text.head.name": "linear",
    "start.method": "cca",
    "classifier.weight": 0.5,
}
TRAINED = {"start__method": "none"}
VECTORS = {"image__tower": "features:64", "data__pairs": "features:x.npz"}
FULL = {"image__tune": "full", "image__standardize": False}


def resolve(**changes):
    flat = {**config_lib.flatten(config_lib.default()), **GOOD}
    return config_lib.resolve({**flat, **{k.replace("__", "."): v for k, v in changes.items()}})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        TRAINED | {"image__standardize": False},
        {"method": "cca", "start__method": "none", "classifier__names": "names.txt"},
        {"method": "ridge", "start__method": "none"},
        {"method": "procrustes", "start__method": "none"},
        {"image__pooling": "cls+mean"},
        {"text__tower": "torch:hf:bert-base-uncased"},
    ],
)
def test_what_goes_with_free_pairs_is_taken(changes):
    assert resolve(**changes).classifier.weight == 0.5


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"image__layer": 9}, "classifier.weight.*image.layer=-1, found 9"),
        ({"image__layer": (9, 11, -1)}, r"classifier.weight.*image.layer=-1, found \(9, 11, -1\)"),
        ({"image__layer": "auto"}, "classifier.weight.*found 'auto'"),
        ({"image__pooling": "auto"}, "classifier.weight.*image.pooling='own'"),
        ({"image__tower": "torch:timm:resnet50"}, "classifier.weight.*that JAX runs"),
        (VECTORS, "classifier.weight.*that JAX runs"),
        (TRAINED | FULL, "classifier.weight.*image.tune='frozen'"),
        (TRAINED | {"cache__views": 0}, "classifier.weight.*cache.views"),
        ({"text__tower": "features:64"}, "data.pairs.*takes vectors"),
        (TRAINED | {"text__tune": "full"}, "classifier.weight.*text.tune='frozen'"),
        (TRAINED | {"cache__text": False}, "classifier.weight.*cache.text=True"),
        ({"data__language": "auto"}, "data.language.*names of classes"),
        ({"method": "asif", "start__method": "none"}, "classifier.weight: 'asif' does not weigh"),
        (TRAINED | {"text__head__norm": "batch"}, "text.head.norm: 'batch'"),
        ({"classifier__weight": 0.0, "classifier__names": "x"}, "classifier.names.*no effect"),
        ({"classifier__weight": 0.0, "classifier__batch": 8}, "classifier.batch.*no effect"),
        (
            {"method": "cca", "start__method": "none", "classifier__batch": 8},
            "classifier.batch.*no effect",
        ),
        ({"classifier__weight": -1.0}, "classifier.weight"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(changes, key):
    with pytest.raises(UserError, match=rf"config\.{key}"):
        resolve(**changes)
