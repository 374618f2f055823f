"""ImageTransform against the PIL-backed image processors of transformers, on photographs' sizes."""

import numpy as np
import pytest
from PIL import Image
from transformers import DeiTImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from ape_jax.errors import UserError
from ape_jax.images.transforms import ImageTransform

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# The files of google/vit-base-patch16-224-in21k, facebook/deit-base, facebook/dinov2-small,
# openai/clip-vit-base-patch32 (old style), google/siglip-base-patch16-224, and corner cases.
CONFIGS = {
    "vit-in21k": (
        ViTImageProcessorPil,
        {"do_normalize": True, "do_resize": True, **HALF, "resample": 2, "size": 224},
    ),
    "vit-dict": (
        ViTImageProcessorPil,
        {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 384, "width": 384},
            "resample": 3,
            **IMAGENET,
            "do_rescale": True,
            "rescale_factor": 0.00392156862745098,
        },
    ),
    "deit": (
        DeiTImageProcessorPil,
        {
            "feature_extractor_type": "DeiTFeatureExtractor",
            "crop_size": 224,
            "size": 256,
            "do_center_crop": True,
            **IMAGENET,
            "resample": 3,
        },
    ),
    "dinov2": (
        BitImageProcessorPil,
        {
            "image_processor_type": "BitImageProcessor",
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_rescale": True,
            **IMAGENET,
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 256},
        },
    ),
    "clip": (
        CLIPImageProcessorPil,
        {
            "feature_extractor_type": "CLIPFeatureExtractor",
            "crop_size": 224,
            "do_center_crop": True,
            "resample": 3,
            "size": 224,
        },
    ),
    "siglip": (
        SiglipImageProcessorPil,
        {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": 224, "width": 224},
            "resample": 3,
            **HALF,
        },
    ),
    "clip-defaults": (CLIPImageProcessorPil, {"image_processor_type": "CLIPImageProcessorFast"}),
    "deit-defaults": (DeiTImageProcessorPil, {"image_processor_type": "DeiTImageProcessor"}),
    "crop larger than resize": (
        BitImageProcessorPil,
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 101},
            "crop_size": 224,
        },
    ),
    "no resize": (
        BitImageProcessorPil,
        {"image_processor_type": "BitImageProcessor", "do_resize": False, "crop_size": 300},
    ),
    "no rescale": (ViTImageProcessorPil, {"do_rescale": False, "resample": 1, "size": 224}),
    "no normalise": (ViTImageProcessorPil, {"do_normalize": False, "size": [224, 224]}),
}
SIZES = [(480, 640), (500, 333), (1080, 1921), (72, 72), (225, 224), (31, 301)]


def _photo(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    small = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(-20, 20, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_pil_processor_of_transformers(name):
    processor_class, config = CONFIGS[name]
    kwargs = {k: v for k, v in config.items() if not k.endswith("_type")}
    reference = processor_class(**kwargs)
    transform = ImageTransform.from_preprocessor_config(config)
    for size in SIZES:
        image = _photo(*size)
        expected = reference(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        got = transform(image)
        assert got.dtype == np.float32 and got.flags.c_contiguous
        np.testing.assert_allclose(got, expected.transpose(1, 2, 0), atol=1e-6, rtol=0)


def test_size_scales_the_resize_before_the_crop():
    config = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}}
    transform = ImageTransform.from_preprocessor_config(config, size=112)
    assert (transform.size, transform.resize_size) == (112, 128)
    assert transform(_photo(300, 200)).shape == (112, 112, 3)


def test_size_of_a_square_resize_moves_both():
    transform = ImageTransform.from_preprocessor_config({"size": 224}, size=518)
    assert (transform.size, transform.resize_size) == (518, 518)


BAD = {
    "unknown class": ({"image_processor_type": "YolosImageProcessor"}, "image_processor_type"),
    "padding": ({"do_pad": True}, "do_pad"),
    "size text": ({"size": "224"}, "size"),
    "size zero": ({"size": 0}, "size"),
    "size huge": ({"size": 10**9}, "size"),
    "size oblong": ({"size": {"height": 224, "width": 200}}, "size"),
    "size keys": ({"size": {"longest_edge": 224}}, "size"),
    "shortest edge without crop": ({"size": {"shortest_edge": 224}}, "do_center_crop"),
    "neither resize nor crop": ({"do_resize": False}, "do_resize"),
    "resample": ({"resample": 9}, "resample"),
    "resample by name": ({"resample": "bicubic"}, "resample"),
    "resample 3.0": ({"resample": 3.0}, "resample"),
    "resample null": ({"resample": None}, "resample"),
    "size null": ({"size": None}, "size"),
    "mean null": ({"image_mean": None}, "image_mean"),
    "mean of two": ({"image_mean": [0.5, 0.5]}, "image_mean"),
    "mean text": ({"image_mean": ["a", "b", "c"]}, "image_mean"),
    "mean of bytes": ({"image_mean": [123.7, 116.3, 103.5]}, "image_mean"),
    "mean below": ({"image_mean": [-0.1, 0, 0]}, "image_mean"),
    "std of bytes": ({"image_std": [58, 57, 57.4]}, "image_std"),
    "factor of 255": ({"rescale_factor": 255}, "rescale_factor"),
    "std zero": ({"image_std": [0, 0, 0]}, "image_std"),
    "factor": ({"rescale_factor": "1/255"}, "rescale_factor"),
    "flag": ({"do_resize": "yes"}, "do_resize"),
    "list": ([1], "object"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BAD)
def test_bad_settings_name_the_file_and_the_key(name):
    config, key = BAD[name]
    with pytest.raises(UserError) as error:
        ImageTransform.from_preprocessor_config(config, source="tower/preprocessor_config.json")
    message = str(error.value)
    assert "tower/preprocessor_config.json" in message and key in message and "\n" not in message


def test_unknown_interpolation_lists_the_known():
    with pytest.raises(UserError, match="bicubic"):
        ImageTransform(size=8, resize_size=8, interpolation="cubic")
