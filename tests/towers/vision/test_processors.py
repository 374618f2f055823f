"""The pixels of folders as people have them, against transformers' AutoImageProcessor on them."""

import json

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES, find
from ape_jax.towers.files import reading
from ape_jax.towers.vision.prepare import PROCESSORS

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SQUARE = {"height": 30, "width": 30}
# (model_type, the file's content); the processor is named, or decided by the type of the model.
FOLDERS = {
    "clip of today": ("clip", {"image_processor_type": "CLIPImageProcessor", "crop_size": 28}),
    "clip, class not named": ("clip", {"size": {"shortest_edge": 40}, "crop_size": SQUARE}),
    "clip, old": (
        "clip",
        {"size": 40, "crop_size": 28, "feature_extractor_type": "CLIPFeatureExtractor"},
    ),
    "clip, old and not named": ("clip", {"size": 40, "crop_size": 28, **HALF}),
    "clip, squashed by its file": ("clip", {"size": SQUARE, "do_center_crop": False}),
    "dinov2, class not named": (
        "dinov2",
        {"size": {"shortest_edge": 40}, "crop_size": SQUARE, **IMAGENET},
    ),
    "dinov2, nothing but a size": ("dinov2", {"size": 36, "crop_size": 32}),
    "vit, class not named": ("vit", {"size": 30, **IMAGENET}),
    "vit, MAE's": ("vit", {"size": {"height": 30, "width": 30}, "resample": 3, **IMAGENET}),
    "vit, a list": ("vit", {"size": [30, 30], "image_mean": 0.4, "image_std": 0.3}),
    "deit, class not named": ("deit", {"size": 40, "crop_size": 28}),
    "siglip, class not named": ("siglip", {"size": SQUARE, "do_convert_rgb": None}),
    "siglip, as Fast": (
        "siglip",
        {"image_processor_type": "SiglipImageProcessorFast", "size": SQUARE},
    ),
    "beit's for a vit": ("vit", {"image_processor_type": "BeitImageProcessor", "size": 30}),
    "beit's with a crop": (
        "vit",
        {
            "image_processor_type": "BeitImageProcessor",
            "size": 40,
            "do_center_crop": True,
            "crop_size": 29,
        },
    ),
    "blip's for a vit": ("vit", {"image_processor_type": "BlipImageProcessor", "size": SQUARE}),
    "chinese clip's": (
        "clip",
        {"feature_extractor_type": "ChineseCLIPFeatureExtractor", "crop_size": 28},
    ),
    "pvt's": ("vit", {"image_processor_type": "PvtImageProcessor", "size": SQUARE}),
    "convnext's, cropped": ("vit", {"image_processor_type": "ConvNextImageProcessor", "size": 50}),
    "convnext's, of a part": (
        "vit",
        {
            "feature_extractor_type": "ConvNextFeatureExtractor",
            "size": {"shortest_edge": 50},
            "crop_pct": 0.95,
        },
    ),
    "convnext's, large": ("vit", {"image_processor_type": "ConvNextImageProcessor", "size": 390}),
    "levit's": (
        "vit",
        {"image_processor_type": "LevitImageProcessor", "size": 40, "crop_size": 40},
    ),
    "a bare size that is a square by its file": (
        "clip",
        {"size": 30, "default_to_square": True, "do_center_crop": False},
    ),
    "crop null": ("clip", {"size": {"height": 30, "width": 30}, "do_center_crop": None}),
    "normalisation null": ("clip", {"size": 40, "crop_size": 30, "do_normalize": None}),
    "scaling null": (
        "vit",
        {"size": {"height": 30, "width": 30}, "do_rescale": None},
    ),
    "resizing null": ("clip", {"do_resize": None, "crop_size": 30, "resample": None}),
    "no normalisation": ("vit", {"size": 30, "do_normalize": False}),
    "another factor": ("vit", {"size": 30, "rescale_factor": 1 / 127.5, "image_mean": 1.0}),
    "a factor below, and no change": (
        "vit",
        {"size": 30, "rescale_factor": 1 / 256, "image_mean": 0.0, "image_std": [1.0] * 3},
    ),
    "statistics of bytes": (
        "clip",
        {"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [58, 57, 57.4]},
    ),
}
SIZES = [(61, 83), (97, 45), (30, 30), (17, 120), (200, 201)]


def folder(path, model_type, settings, nested=False):
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(path)
    name = "processor_config.json" if nested else "preprocessor_config.json"
    content = {"image_processor": settings, "processor_class": "X"} if nested else settings
    (path / name).write_text(json.dumps(content))
    return path


def prepare(path):
    config = json.loads((path / "config.json").read_text())
    family, fields = find(config, str(path), "image", path)
    return family.prepare(path, family.parse(fields), {})


def photos():
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        yield image.convert("RGB")


def theirs(processor, image):
    return processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
def test_pixels_equal_transformers_bit_for_bit(tmp_path, name, nested):
    path = folder(tmp_path, *FOLDERS[name], nested=nested)
    processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    ours = prepare(path)
    for image in photos():
        np.testing.assert_array_equal(ours([image])["image"][0], theirs(processor, image))


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK"])
def test_images_of_other_modes_are_those_of_transformers(tmp_path, mode):
    path = folder(tmp_path, *FOLDERS["clip, class not named"])
    processor = transformers.AutoImageProcessor.from_pretrained(path, backend="pil")
    ours = prepare(path)
    alpha = np.random.default_rng(1)
    for image in photos():
        if mode.endswith("A"):
            band = alpha.integers(0, 256, image.size[::-1], np.uint8)
            image = image.convert("L" if mode == "LA" else "RGB")
            image.putalpha(Image.fromarray(band))
        else:
            image = image.convert(mode)
        np.testing.assert_array_equal(ours([image])["image"][0], theirs(processor, image))


def test_a_section_of_processor_config_goes_before_a_file_of_its_own(tmp_path):
    folder(tmp_path, "clip", {"size": 40, "crop_size": 28})
    folder(tmp_path, "clip", {"size": 30, "crop_size": 20}, nested=True)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = next(photos())
    got = prepare(tmp_path)([image])["image"][0]
    np.testing.assert_array_equal(got, theirs(processor, image))


def test_processors_are_those_of_transformers():
    for family in FAMILIES.values():
        for model_type in family.model_types if family.kind == "image" else ():
            names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
            if names is not None:
                name = (names.get("torchvision") or names["pil"]).removesuffix("Pil")
                assert f"{PROCESSORS[model_type]}ImageProcessor" == name, model_type


@pytest.mark.parametrize(
    ("model_type", "match"),
    [
        ("vit", r"squashed to 224 x 224 pixels, with mean 0.5, 0.5, 0.5, as for most vit towers"),
        ("dinov2", r"shortest edge of 256 pixels, cropped to 224 x 224, with mean 0.485"),
    ],
)
def test_a_folder_without_the_file_says_what_is_assumed(tmp_path, model_type, match):
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(tmp_path)
    with reading.tower("tower") as said:
        prepare(tmp_path)
    (line,) = [x for x in said.lines() if "not read" not in x]
    assert line.startswith("tower: no preprocessor_config.json; images are ")
    assert match in line.replace("\\", "")


def test_a_processor_that_is_not_named_by_a_type_transformers_does_not_map_is_said(tmp_path):
    folder(tmp_path, "dinov2_with_registers", {"size": 40, "crop_size": 28})
    with reading.tower("tower") as said:
        assert prepare(tmp_path).transform.resize == "shortest"
    assert "names no image_processor_type; BitImageProcessor is taken" in said.lines()[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"image_processor_type": "YolosImageProcessor"},
        {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False},
        {"image_processor_type": "CLIPImageProcessor", "do_pad": True},
        {"size": {"height": 224, "width": 448}},
        {"size": {"shortest_edge": 224, "longest_edge": 448}},
    ],
)
def test_geometry_that_is_not_supported_is_not_to_be_changed(tmp_path, settings):
    with pytest.raises(UserError, match=r"write torch:hf:NAME_OR_DIR in image\.tower") as error:
        prepare(folder(tmp_path, "vit", settings))
    assert "one of" not in str(error.value)


def test_settings_that_are_not_applied_are_named(tmp_path):
    path = folder(tmp_path, "vit", {"size": 30, "do_sharpen": True, "do_convert_rgb": True})
    with reading.tower("tower") as said:
        towers.build(path)
        prepare(path)
    assert said.lines() == ("tower: not read: preprocessor_config.json: do_sharpen",)
