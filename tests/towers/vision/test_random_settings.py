"""Image settings drawn at random: pixels are transformers' own, or the refusal is a sentence."""

import json
import random

import numpy as np
import pytest
import transformers

from ape_jax.errors import UserError
from tests.towers.vision.test_processors import photos, prepare, theirs

TYPES = (
    "vit vit_mae vit_msn ijepa deit dinov2 beit data2vec-vision clip altclip chinese_clip blip "
    "metaclip_2 siglip mlcd pixio convnext convnextv2"
).split()
FLAGS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
CLASSES = "ViT CLIP Bit Siglip DeiT Blip ConvNext Beit ChineseCLIP".split()
VALUES = {
    **{flag: (True, False, None) for flag in FLAGS},
    "resample": (0, 1, 2, 3, 4, 5),
    "rescale_factor": (1 / 255, 1 / 127.5, 1 / 256, 1.0),
    "image_mean": ([0.5] * 3, [0.485, 0.456, 0.406], 0.4, [0, 0, 0]),
    "image_std": ([0.5] * 3, [0.229, 0.224, 0.225], 0.4, [1, 1, 1], 1),
    "default_to_square": (True, False),
    "crop_pct": (0.875, 0.9, 1.0),
    "image_processor_type": [
        f"{name}ImageProcessor{end}" for name in CLASSES for end in ("", "Fast")
    ],
    "feature_extractor_type": ("ViTFeatureExtractor", "CLIPFeatureExtractor"),
}


def sizes(draw):
    side = draw.choice((24, 30, 48))
    square = {"height": side, "width": side}
    odd = {"height": side, "width": side + 2}, {"shortest_edge": side, "longest_edge": 2 * side}
    return draw.choice((side, square, {"shortest_edge": side}, [side, side], *odd))


def drawn(draw):
    """A type of model, and settings of some keys."""
    settings = {key: draw.choice(VALUES[key]) for key in draw.sample(list(VALUES), 4)}
    settings |= {key: sizes(draw) for key in draw.sample(("size", "crop_size"), draw.randint(0, 2))}
    return draw.choice(TYPES), settings


@pytest.mark.parametrize("seed", range(6))
def test_pixels_equal_transformers_or_a_sentence_says_why_not(tmp_path, seed):
    draw, equal = random.Random(seed), 0
    images = list(photos())[:3]
    for number in range(12):
        model_type, settings = drawn(draw)
        path = tmp_path / str(number)
        transformers.CONFIG_MAPPING[model_type]().save_pretrained(path)
        (path / "preprocessor_config.json").write_text(json.dumps(settings))
        try:
            ours = prepare(path)(images)["image"]
        except UserError as error:
            assert "\n" not in str(error) and "write" in str(error)
            continue
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
            want = np.stack([theirs(processor, image) for image in images])
        except (ValueError, OSError, TypeError):  # More than they accept is no harm.
            continue
        np.testing.assert_array_equal(ours, want, err_msg=f"{model_type} {settings}")
        equal += 1
    assert equal >= 3
