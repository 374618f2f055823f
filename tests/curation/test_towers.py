"""Which keys of a config decide the features that curation looks at."""

import pytest

from ape_jax import config as config_lib
from ape_jax.curation.towers import reading_config
from ape_jax.errors import UserError


def _config(**keys):
    usual = {"image.tower": "here/image", "text.tower": "here/text", "data.pairs": "a.jsonl"}
    return config_lib.resolve({**usual, **{k.replace("__", "."): v for k, v in keys.items()}})


def test_what_is_read_is_kept_and_what_is_trained_is_not():
    read = {"image__layer": (9, -1), "image__size": 56, "text__pooling": "cls"}
    trained = {"text__tune": "full", "text__head__name": "linear"}
    config = _config(**read, **trained, cache__views=2, augment__flip=True)
    found = reading_config(config, "pool.jsonl")
    assert (found.image.layer, found.image.size, found.text.pooling) == ((9, -1), 56, "cls")
    assert (found.text.tune, found.cache.views, found.data.pairs) == ("frozen", 1, "pool.jsonl")


def test_vectors_are_refused():
    config = _config(image__tower="features:8", data__pairs="features:x.npz")
    with pytest.raises(UserError, match="stands for vectors"):
        reading_config(config, "features:x.npz")
