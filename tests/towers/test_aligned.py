"""What stands on the towers of finished models, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ape_jax.errors import UserError
from ape_jax.towers import aligned


@pytest.fixture
def copied(finished, tmp_path):
    """`copied("clip")` is a copy to break."""

    def copy(name):
        shutil.copytree(finished(name)[1], tmp_path / "model")
        return tmp_path / "model"

    return copy


def without(*names, **more):
    """Takes tensors out of the file and puts others in."""

    def change(path):
        tensors = load_file(path / "model.safetensors")
        kept = {name: a for name, a in tensors.items() if name not in names}
        save_file({**kept, **more}, path / "model.safetensors")

    return change


def config(section=None, **keys):
    def change(path):
        content = json.loads((path / "config.json").read_text())
        (content if section is None else content[section]).update(keys)
        (path / "config.json").write_text(json.dumps(content))

    return change


def tampered(path):
    content = bytearray((path / "model.safetensors").read_bytes())
    content[:8] = (2**62).to_bytes(8, "little")  # The length of the header.
    (path / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("clip", without("visual_projection.weight"), "'visual_projection.weight' is missing"),
        ("siglip", without("logit_bias"), "'logit_bias' is missing"),
        ("clip", without(logit_scale=np.zeros(2, np.float32)), r"'logit_scale' is \[2\]"),
        ("clip", without(logit_scale=np.float32("nan").reshape(1)), "not one finite number"),
        ("clip", without(**{"text_projection.weight": np.zeros(3, np.float32)}), "two axes"),
        ("vit+bert", without("text_model.pooler.dense.bias"), "pooler.dense.bias' is missing"),
        ("vit+bert", without(adapter=np.zeros(3, np.float32)), "'adapter' is in no part"),
        ("vit+bert", config("vision_config", pooler_act="relu"), "'pooler_act' is 'relu'"),
        ("vit+bert", config("text_config", model_type="t5"), "model_type is 't5'"),
        ("siglip", config("vision_config", vision_use_head=False), "no image embeddings"),
        ("clip", config(model_type="blip"), "'blip' is no finished model of two towers"),
        ("clip", config(model_type="bert"), "a single tower is named in image.tower"),
        ("clip", lambda path: (path / "model.safetensors").unlink(), "holds no model.safetensors"),
        ("clip", lambda path: (path / "config.json").unlink(), "config.json does not exist"),
        ("clip", lambda path: (path / "config.json").write_text("{"), "is not JSON"),
        ("clip", tampered, "no whole safetensors file"),
    ],
)
def test_what_is_not_whole_is_one_sentence(copied, name, damage, words):
    path = copied(name)
    damage(path)
    with pytest.raises(UserError, match=words) as error:
        aligned.read(str(path))
    assert "\n" not in str(error.value)


def test_towers_without_a_pooled_output_are_refused(finished):
    with pytest.raises(UserError, match="'distilbert', which is not supported as the text half"):
        aligned.read(str(finished("clip+distilbert")[1]))


def test_finished_models_are_told_from_work_directories(finished, copied, tiny, tmp_path):
    path = copied("clip")
    assert aligned.is_model(str(path)) and aligned.is_model("hf:openai/clip-vit-base-patch32")
    (path / "config.json").unlink()
    assert aligned.is_model(str(path))  # A half of one.
    assert not aligned.is_model(str(tmp_path)) and not aligned.is_model("no/such")
    (tmp_path / "config.json").write_text('{"image.tower": "x"}')
    assert not aligned.is_model(str(tmp_path))
