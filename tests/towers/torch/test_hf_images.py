"""`torch:hf:` on images: features are transformers' own bits."""

import json

import numpy as np
import pytest
import torch
import transformers

from ape_jax import towers
from ape_jax.errors import UserError
from tests.towers.torch.saving import randomised, save_images


def load(directory, **options):
    return towers.load(f"torch:hf:{directory}", kind="image", dtype="float32", **options)


def theirs(directory, pictures, **options):
    """What transformers gives for these pictures."""
    model = transformers.AutoModel.from_pretrained(directory).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(directory)
    with torch.inference_mode():
        return model(**processor(images=pictures, return_tensors="pt"), **options)


def test_pooled_features_of_a_swin_are_its_pooler_output(swin, pictures):
    tower = load(swin)
    out = tower(tower.prepare(pictures))
    want = theirs(swin, pictures)
    np.testing.assert_array_equal(out.pooled, want.pooler_output)
    np.testing.assert_array_equal(out.tokens, want.last_hidden_state)
    assert tower.config.pooled_width() == want.pooler_output.shape[1]


def test_places_of_a_feature_map_are_tokens(resnet, pictures):
    tower = load(resnet)
    out = tower(tower.prepare(pictures), pooling="mean")
    want = theirs(resnet, pictures)
    np.testing.assert_array_equal(out.tokens, want.last_hidden_state.flatten(2).mT)
    own = tower(tower.prepare(pictures)).pooled
    np.testing.assert_array_equal(own, want.pooler_output.flatten(1))
    np.testing.assert_allclose(out.pooled, own, rtol=1e-5, atol=1e-6)  # It pools by the mean.


def test_an_inner_layer_is_that_hidden_state(swin, pictures):
    tower = load(swin)
    out = tower(tower.prepare(pictures), layer=1, pooling="mean")
    want = theirs(swin, pictures, output_hidden_states=True).hidden_states[1]
    np.testing.assert_array_equal(out.tokens, want)


def test_products_in_bfloat16_are_those_of_autocast(swin, pictures):
    tower = towers.load(f"torch:hf:{swin}", kind="image", dtype="bfloat16")
    with torch.autocast("cpu", torch.bfloat16):
        want = theirs(swin, pictures).pooler_output
    np.testing.assert_array_equal(tower(tower.prepare(pictures)).pooled, want.float())


def test_masking_autoencoders_see_all_patches_in_their_order(tmp_path, pictures):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTMAEConfig(image_size=32, patch_size=8, intermediate_size=48, **sizes)
    model = randomised(transformers.ViTMAEModel(config))
    model.save_pretrained(tmp_path)
    save_images(tmp_path)
    tower = load(tmp_path)
    out = tower(tower.prepare(pictures))
    model.config.mask_ratio = 0.0
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    with torch.inference_mode():
        inputs = processor(images=pictures, return_tensors="pt")
        want = model(**inputs, noise=torch.arange(16.0).expand(3, 16)).last_hidden_state
    np.testing.assert_array_equal(out.tokens, want)
    np.testing.assert_array_equal(out.pooled, want[:, 0])  # Said to be "cls": it has no pooler.


def test_a_pooler_without_weights_is_not_read(tmp_path, pictures, capsys):
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
    )
    model = randomised(transformers.ViTModel(config, add_pooling_layer=False))
    model.save_pretrained(tmp_path)
    save_images(tmp_path)
    tower = load(tmp_path)
    out = tower(tower.prepare(pictures))
    np.testing.assert_array_equal(out.pooled, out.tokens[:, 0])
    assert "its own pooling is 'cls'" in capsys.readouterr().err


def test_weights_that_would_be_random_are_refused(swin, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(swin / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layernorm_before.weight"))
    save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors")
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_bytes((swin / file).read_bytes())
    with pytest.raises(UserError, match="random numbers") as error:
        load(tmp_path)
    assert name in str(error.value)


def test_an_image_size_is_refused(swin):
    with pytest.raises(UserError, match=r"image_size is 64; .* has its own library prepare images"):
        load(swin, image_size=64)


def test_a_layer_that_it_does_not_have_is_refused(swin, pictures):
    tower = load(swin)
    with pytest.raises(UserError, match=r"layer is 9; .* gives 3 hidden states"):
        tower(tower.prepare(pictures), layer=9, pooling="mean")


def test_code_of_the_directory_is_refused(swin, tmp_path):
    for file in swin.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((swin / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModel": "modeling_mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_mine.py").write_text("raise RuntimeError('I ran')")
    with pytest.raises(UserError, match=r"brings code of its own.*trust_remote_code=True"):
        load(tmp_path)


def test_a_processor_that_needs_torchvision_says_so(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.DINOv3ViTConfig(**sizes, intermediate_size=48, image_size=32)
    transformers.DINOv3ViTModel(config).save_pretrained(tmp_path)
    save_images(tmp_path, "DINOv3ViTImageProcessor")
    with pytest.raises(UserError, match="image processor without torchvision; run pip install"):
        load(tmp_path)
