"""Towers that are no plain ViT through a whole run: trained, cached or not, resumed, restored."""

import numpy as np
import pytest
import torch
import transformers
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

import ape_jax
from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.training import loop

CONVNET = {"hidden_sizes": [8, 32], "depths": [1, 2], "image_size": 32, "num_stages": 2}
VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "patch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Directories of a ConvNeXt, a BEiT and a SigLIP 2 NaFlex."""
    root = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    transformers.ConvNextV2Model(transformers.ConvNextV2Config(**CONVNET)).save_pretrained(
        root / "convnext"
    )
    beit = transformers.BeitConfig(**VISION, image_size=32, use_relative_position_bias=True)
    transformers.BeitModel(beit).save_pretrained(root / "beit")
    naflex = transformers.Siglip2VisionConfig(**VISION, num_patches=16)
    transformers.Siglip2VisionModel(naflex).save_pretrained(root / "naflex")
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=20)
    processor.save_pretrained(root / "naflex")
    return root


def configured(tiny, towers, name, tmp_path, **settings):
    config = config_lib.default()
    config.image.tower, config.text.tower = str(towers / name), str(tiny / "text")
    config.image.dtype = config.text.dtype = "float32"
    config.data.pairs = str(tiny / "pairs.jsonl")
    config.data.eval = {"shapes": str(tiny / "pairs.jsonl")}
    config.train.batch, config.train.steps, config.train.log_every = 16, 3, 1
    config.eval.batch = 8
    config.cache.dir = str(tmp_path / "features")
    config_lib.override(config, settings)
    return config_lib.resolve(config)


FULL = {"image.tune": "full", "image.standardize": "False", "augment.flip": "True"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("convnext", {}),
        ("convnext", {**FULL, "train.remat": "blocks"}),
        ("naflex", {}),
        ("naflex", FULL),
        ("beit", {"image.tune": "top:1", "image.standardize": "False"}),
    ],
    ids=str,
)
def test_a_run_trains_and_its_model_encodes(tiny, towers, tmp_path, name, settings):
    config = configured(tiny, towers, name, tmp_path, **settings)
    loop.train_and_evaluate(config, tmp_path / "run")
    model = ape_jax.load(tmp_path / "run")
    z = model.encode_image([str(tiny / "red-square.png"), str(tiny / "blue-bar.png")])
    assert z.shape[0] == 2 and np.isfinite(z).all() and z[0] @ z[1] < 0.99999


def test_hidden_states_of_packed_images_are_refused(tiny, towers, tmp_path):
    config = configured(
        tiny, towers, "naflex", tmp_path, **{"image.tune": "top:1", "image.standardize": "False"}
    )
    with pytest.raises(UserError, match=r"config\.image\.tune: 'top:1' keeps hidden states"):
        loop.train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize("layer", ["0", "2"])
def test_an_inner_layer_of_a_convnet_is_refused_by_its_key(tiny, towers, tmp_path, layer):
    config = configured(tiny, towers, "convnext", tmp_path, **{"image.layer": layer})
    with pytest.raises(UserError, match=r"config\.image\.layer: layer is .* only its output"):
        loop.train_and_evaluate(config, tmp_path / "run")
