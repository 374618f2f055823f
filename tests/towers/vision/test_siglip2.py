"""SigLIP 2 NaFlex against transformers' processor and model, for images of many shapes."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.images.augment import Augment
from ape_jax.images.packed import capacity, cells
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names

VISION = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "patch_size": 8, "num_patches": 16,
}  # fmt: skip
TEXT = {**VISION, "vocab_size": 99, "max_position_embeddings": 16}
SHAPES = ((60, 60), (90, 31), (17, 120), (8, 300), (33, 47))
MOST = 25


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(the torch model, the tower, its processor, the directory)."""
    path = tmp_path_factory.mktemp("model")
    config = transformers.Siglip2Config(text_config=TEXT, vision_config=VISION)
    model, generator = transformers.Siglip2Model(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if parameter.ndim == 1:
                parameter.add_(0.5)
    model.save_pretrained(path)
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=MOST)
    processor.save_pretrained(path)
    tower = towers.load(path, kind="image", dtype="float32")
    return model.vision_model.eval(), tower, processor, path


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), np.uint8)) for s in SHAPES]


def encode(tower, image, **options):
    run = jax.jit(lambda params, batch: tower.tower.apply(params, batch, **options))
    return run.lower(tower.params, {"image": image}).compile()(tower.params, {"image": image})


def relative(got, want):
    want = np.asarray(want)
    assert got.shape == want.shape
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def run(model, inputs):
    with torch.inference_mode():
        return model(**inputs, output_hidden_states=True)


def patches(canvas, size=8):
    """The patches of a canvas in reading order, flattened, without the last cell."""
    side = canvas.shape[0] // size
    cut = canvas.reshape(side, size, side, size, 3).swapaxes(1, 2)
    return cut.reshape(side * side, -1)[:-1]


def test_pixels_equal_those_of_the_processor(saved, pictures):
    _, tower, processor, _ = saved
    want = processor(pictures, return_tensors="np")
    got = tower.prepare(pictures)["image"]
    for canvas, pixels, (down, across) in zip(
        got, want["pixel_values"], want["spatial_shapes"], strict=True
    ):
        np.testing.assert_array_equal(patches(canvas)[:MOST], pixels)
        np.testing.assert_array_equal(canvas[-8, -8], [down, across, 0])


def test_packed_images_of_many_shapes_equal_transformers(saved, pictures):
    model, tower, processor, _ = saved
    inputs = processor(pictures, return_tensors="pt")
    assert len({tuple(shape) for shape in inputs["spatial_shapes"].tolist()}) == len(SHAPES)
    want, got = run(model, inputs), encode(tower, tower.prepare(pictures)["image"])
    np.testing.assert_array_equal(got.mask, inputs["pixel_attention_mask"].bool())
    assert relative(got.tokens, want.last_hidden_state) < 2e-5
    assert relative(got.pooled, want.pooler_output) < 2e-5
    inner = encode(tower, tower.prepare(pictures)["image"], layer=2, pooling="mean")
    kept = inputs["pixel_attention_mask"][..., None]
    hidden = want.hidden_states[2]
    assert relative(inner.tokens, hidden) < 2e-5
    assert relative(inner.pooled, (hidden * kept).sum(1) / kept.sum(1)) < 2e-5


def test_plain_batches_of_one_shape_equal_transformers(saved):
    model, tower, _, _ = saved
    for down, across in ((4, 4), (5, 3), (2, 7)):
        image = np.random.default_rng(0).normal(size=(2, 8 * down, 8 * across, 3))
        image = image.astype(np.float32)
        cut = image.reshape(2, down, 8, across, 8, 3).swapaxes(2, 3)
        inputs = {
            "pixel_values": torch.tensor(cut.reshape(2, down * across, -1)),
            "pixel_attention_mask": torch.ones(2, down * across, dtype=torch.int64),
            "spatial_shapes": torch.tensor([[down, across]] * 2),
        }
        want, got = run(model, inputs), encode(tower, image)
        assert relative(got.tokens, want.last_hidden_state) < 2e-5
        assert relative(got.pooled, want.pooler_output) < 2e-5


def test_the_names_lead_back_to_the_file(saved):
    from safetensors.numpy import load_file

    _, tower, _, path = saved
    in_file = load_file(path / "model.safetensors")
    table = FAMILIES["siglip2"].tables[0]
    for key, array in names.to_file(table, tower.params, heads=4, prefix="vision_model.").items():
        np.testing.assert_array_equal(array, in_file[key], err_msg=key)


def test_image_size_says_how_many_patches(saved, pictures):
    model, _, _, path = saved
    tower = towers.load(path, kind="image", dtype="float32", image_size=32)
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    inputs = processor(pictures, return_tensors="pt")
    got = encode(tower, tower.prepare(pictures)["image"])
    assert relative(got.pooled, run(model, inputs).pooler_output) < 2e-5


def test_an_empty_row_that_fills_a_batch_is_finite(saved, pictures):
    _, tower, _, _ = saved
    image = tower.prepare(pictures[:1])["image"]
    out = encode(tower, np.concatenate([image, np.zeros_like(image)]))
    assert np.isfinite(out.pooled).all() and not out.mask[1].any()


def test_augmented_views_are_packed(saved, pictures):
    transform = saved[1].prepare.transform
    picture = np.asarray(pictures[4])
    for crop in (None, (0.5, 1.0)):
        augment = Augment(crop=crop, flip=True, randaugment=(1, 5))
        view = augment(picture, np.random.default_rng(1), transform)
        down, across, _ = view[-8, -8]
        assert view.shape == (48, 48, 3) and 0 < down * across <= MOST


def test_cells_and_their_capacity():
    for most in (1, 4, 5, 16, 25, 255, 256, 257):
        side = cells(most)
        assert most <= capacity(side) < side * side
        assert capacity(side - 1) < most


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("patch_size", 16, "only 8"),
        ("max_num_patches", 0, "whole number"),
        ("do_resize", False, ""),
    ],
)
def test_settings_that_do_not_fit_are_refused(saved, tmp_path, key, value, words):
    path = saved[3]
    for file in path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    settings = json.loads((path / "preprocessor_config.json").read_text()) | {key: value}
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=f"{key}.*{words}"):
        towers.load(tmp_path, kind="image")


def test_defaults_are_those_of_the_transformers_config():
    full = transformers.Siglip2VisionConfig().to_dict()
    _, ours = towers.build({"model_type": "siglip2_vision_model"})
    _, theirs = towers.build({**full, "model_type": "siglip2_vision_model"})
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
