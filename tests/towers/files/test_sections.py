"""The two towers of one directory as towers of their own."""

import json

import jax
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.errors import UserError


def test_each_of_two_is_the_tower_saved_by_itself(finished, tmp_path):
    model, path = finished("dinov2+bert")
    for kind, half in (("image", model.vision_model), ("text", model.text_model)):
        alone = tmp_path / kind
        half.save_pretrained(alone)
        for name in ("tokenizer.json", "preprocessor_config.json"):
            (alone / name).write_bytes((path / name).read_bytes())
        ours, theirs = towers.load(path, kind=kind), towers.load(alone, kind=kind)
        assert (ours.config, ours.tower.digest) == (theirs.config, theirs.tower.digest)
        jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_which_of_two_has_to_be_named(finished):
    with pytest.raises(UserError, match="holds an image and a text tower; write kind='image'"):
        towers.load(finished("dinov2+bert")[1])


def test_a_section_that_is_missing_is_one_sentence(finished, tmp_path):
    config = json.loads((finished("dinov2+bert")[1] / "config.json").read_text())
    del config["text_config"]
    with pytest.raises(UserError, match="'text_config' is NoneType; write an object"):
        towers.build(config, kind="text")
