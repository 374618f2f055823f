"""Finished models into JAX and out again: every tensor has the bits that it had."""

import json

import pytest
from safetensors.numpy import load_file

from ape_jax.errors import UserError
from ape_jax.exporters import to_dual_encoder, to_torch, verify
from ape_jax.runs.restore import restore


def assert_same_bits(path, out):
    before, after = (load_file(d / "model.safetensors") for d in (path, out))
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert (array.shape, array.dtype) == (after[name].shape, after[name].dtype), name
        assert array.tobytes() == after[name].tobytes(), name


@pytest.mark.parametrize(
    "name",
    [
        "clip+bert",
        "dinov2+bert",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("vit+roberta", "siglip+clip_text", "clip+mpnet", "clip")
        ),
    ],
)
def test_torch_to_jax_to_torch_keeps_every_bit(finished, tmp_path, name):
    path = finished(name)[1]
    aligned = restore(str(path), verify.EXACT)
    to_dual_encoder.write(aligned, tmp_path)
    assert_same_bits(path, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert f"Taken over by ape_jax from `{path.name}`" in card and "## Training" not in card
    kinds = {"clip": ("clip_vision_model", "clip_text_model")}.get(name)
    config = json.loads((tmp_path / "config.json").read_text())
    if kinds:
        assert tuple(config[f"{s}_config"]["model_type"] for s in ("vision", "text")) == kinds


def test_a_tower_that_attends_to_padding_is_refused(finished, tmp_path):
    aligned = restore(str(finished("siglip")[1]), verify.EXACT)
    for writer in (to_dual_encoder, to_torch):
        with pytest.raises(UserError, match=r"attends to padding, .* write --format jax"):
            writer.write(aligned, tmp_path)
    assert not list(tmp_path.iterdir())
