"""Models of timm from their own files, against timm itself, which runs apart."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers import classifier
from ape_jax.towers.files import names
from ape_jax.towers.vision.timm.names import NAMES

ARGS = {
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
    "img_size": 32,
    "patch_size": 8,
    "dynamic_img_size": True,
}
GATED = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
UNI2 = {"reg_tokens": 8, "no_embed_class": True, "init_values": 1e-5, "mlp_ratio": 5.33334}
VIRCHOW2 = {"reg_tokens": 4, "global_pool": "", "init_values": 1e-5, "mlp_ratio": 5.3375}
# Architecture, arguments, preparation, arguments that are classes.
MODELS = {
    "augreg": ("vit_tiny_patch16_224", {}, {"crop_pct": 0.9}, {}),
    "wrapped": ("vit_tiny_patch16_224", {"qkv_bias": False}, {}, {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}, {"crop_mode": "squash"}, {}),
    "deit3": ("deit3_small_patch16_224", {}, {"crop_pct": 1.0, "interpolation": "bilinear"}, {}),
    "dinov2": ("vit_small_patch14_reg4_dinov2", {}, {"crop_mode": "border"}, {}),
    "dinov2 giant": ("vit_giant_patch14_dinov2", {}, {}, {}),
    "uni2": ("vit_giant_patch14_224", UNI2, {}, GATED),
    "virchow2": ("vit_huge_patch14_224", VIRCHOW2, {}, GATED),
    "clip": ("vit_base_patch32_clip_quickgelu_224", {}, {}, {}),
    "siglip": ("vit_base_patch16_siglip_224", {}, {"crop_pct": 0.9, "crop_mode": "squash"}, {}),
    "siglip2": ("vit_base_patch32_siglip_gap_256", {}, {}, {}),
    "registers and map": ("vit_so150m_patch16_reg4_map_256", {}, {}, {}),
    "no cls": ("vit_medium_patch16_reg4_gap_256", {}, {}, {}),
    "eva02": ("eva02_base_patch14_224", {"qkv_fused": False, "num_heads": 2}, {}, {}),
    "eva02 clip": ("eva02_base_patch16_clip_224", {"num_heads": 2}, {}, {}),
    "eva02 tiny": ("eva02_tiny_patch14_224", {}, {}, {}),
    "eva": ("eva_giant_patch14_224", {"init_values": 0.1}, {}, {}),
    "rope": ("vit_medium_patch16_rope_reg1_gap_256", {}, {}, {}),
    "rope and table": ("vit_small_patch16_rope_ape_224", {}, {}, {}),
    "pe": ("vit_pe_core_base_patch16_224", {"num_heads": 2}, {}, {}),
    "pe lang": ("vit_pe_lang_large_patch14_448", {"num_heads": 2}, {}, {}),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", {"num_heads": 2}, {}, {}),
    "dinov3 plus": ("vit_huge_plus_patch16_dinov3", {"num_heads": 2}, {}, {}),
    "qk norm": ("vit_base_patch16_224", {"qk_norm": True, "scale_mlp_norm": True}, {}, {}),
    "mae": ("vit_base_patch16_224", {"global_pool": "avg"}, {}, {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, apart):
    """A folder with every model, and what timm makes of them."""
    folder = tmp_path_factory.mktemp("timm")
    specs = [
        {
            "name": name,
            "architecture": architecture,
            "args": {**ARGS, **args},
            "cfg": {"input_size": [3, 32, 32], **cfg},
            "layers": layers,
            "sizes": [[32, 32], [40, 24]],
            "wrapped": name == "wrapped",
        }
        for name, (architecture, args, cfg, layers) in MODELS.items()
    ]
    (folder / "specs.json").write_text(json.dumps(specs))
    apart("timm_models.py", folder / "specs.json", folder)
    return folder


def relative(got, want):
    assert got.shape == want.shape
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def encode(tower, image, **options):
    """`tower.apply`, compiled without optimisation: compiling is what these tests cost."""
    run = jax.jit(lambda params, batch: tower.tower.apply(params, batch, **options))
    run = run.lower(tower.params, {"image": image}).compile()
    return run(tower.params, {"image": image})


@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_timm_at_native_and_other_sizes(made, name):
    tower, want = towers.load(made / name, dtype="float32"), np.load(made / f"{name}.npz")
    for n in (0, 1):
        got = encode(tower, want[f"image{n}"])
        assert relative(got.tokens, want[f"tokens{n}"]) < 2e-5
        if name not in ("distilled", "virchow2"):  # Said when they are read.
            assert relative(got.pooled, want[f"pooled{n}"]) < 2e-5
    inner = encode(tower, want["image0"], layer=1, pooling="none")
    assert relative(inner.tokens, want["inner0"]) < 2e-5


# Of these the class in timm takes a mean of two classifiers, all tokens, or has none.
WITHOUT = ("distilled", "virchow2", "wrapped")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT])
def test_rows_of_the_classifier_give_timms_logits(made, name):
    want = np.load(made / f"{name}.npz")
    tensors = load_file(made / name / "model.safetensors")
    if "head.weight" not in tensors:
        with pytest.raises(UserError, match="holds no classifier"):
            classifier.read(made / name)
        return
    found = classifier.read(made / name)
    pooled = encode(towers.load(made / name, dtype="float32"), want["image0"]).pooled
    got = np.asarray(pooled) @ found.rows.T + tensors["head.bias"]
    assert relative(got, want["logits0"]) < 2e-5
    assert found.pooling == found.own_pooling


def test_labels_of_timm_stand_in_its_config(made, tmp_path):
    shutil.copytree(made / "augreg", tmp_path / "copy")
    file = tmp_path / "copy/config.json"
    config = json.loads(file.read_text())
    names_ = [f"class {i}" for i in range(config["num_classes"])]
    for place in (config, config["pretrained_cfg"]):
        place["label_names"] = names_
        file.write_text(json.dumps(config))
        assert classifier.read(tmp_path / "copy").labels == tuple(names_)
        del place["label_names"]
    config["label_names"] = names_[:-1]
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="'label_names' names 999 classes"):
        classifier.read(tmp_path / "copy")


@pytest.mark.parametrize("name", MODELS)
def test_pixels_are_timms_own_bits(made, name):
    prepare, want = towers.load(made / name).prepare, np.load(made / f"{name}.npz")
    for n in range(5):
        got = prepare([Image.fromarray(want[f"raw{n}"])])["image"][0]
        np.testing.assert_array_equal(got, want[f"pixels{n}"])


@pytest.mark.parametrize("name", ["augreg", "dinov2", "siglip", "registers and map"])
def test_names_lead_back_to_the_file(made, name):
    tower = towers.load(made / name)
    got = names.to_file(NAMES, tower.params, heads=tower.config.heads)
    want = load_file(made / name / "model.safetensors")
    assert got.keys() == {n for n in want if not n.startswith("head.")}
    for key, array in got.items():
        np.testing.assert_array_equal(array, want[key])


def test_another_image_size_resizes_the_table_as_the_forward_pass_does(made):
    want = np.load(made / "augreg.npz")
    tower = towers.load(made / "augreg", dtype="float32", image_size=48)
    native = towers.load(made / "augreg", dtype="float32")
    image = tower.prepare([Image.fromarray(want["raw0"])])["image"]
    assert image.shape == (1, 48, 48, 3)
    assert relative(encode(tower, image).tokens, encode(native, image).tokens) < 2e-6


def test_what_is_assumed_is_said_with_the_tower(made):
    notes = {name: " ".join(towers.load(made / name).tower.notes) for name in MODELS}
    assert "'silu' is taken" in notes["uni2"] and "'silu' is taken" in notes["virchow2"]
    assert "pooling 'cls' is taken" in notes["virchow2"]
    assert "mean of the first two tokens" in notes["distilled"]
    assert not any(notes[name] for name in notes.keys() - {"uni2", "virchow2", "distilled"})


@pytest.mark.parametrize(
    ("changes", "options"), [({}, {"image_size": 48}), ({"args": {"img_size": 32}}, {})]
)
def test_a_size_that_another_stands_above_was_read(made, tmp_path, changes, options):
    fixed = {"input_size": [3, 32, 32], "fixed_input_size": True}
    path = changed(made, tmp_path / "model", config={"pretrained_cfg": fixed}, **changes)
    assert towers.load(path, **options).tower.notes == ()


def changed(made, path, *, config=None, args=None, tensors=None):
    """The `augreg` model with another config or other tensors."""
    shutil.copytree(made / "augreg", path)
    found = json.loads((path / "config.json").read_text())
    found |= config or {}
    found["model_args"] = {
        k: v for k, v in {**found["model_args"], **(args or {})}.items() if v is not None
    }
    (path / "config.json").write_text(json.dumps(found))
    if tensors:
        arrays = load_file(path / "model.safetensors")
        save_file(tensors(arrays), path / "model.safetensors")
    return path


BAD = {
    "a kind that is not read": ({"config": {"architecture": "swin_tiny"}}, "torch:timm:swin_tiny"),
    "a block of another order": (
        {"config": {"architecture": "vit_base_patch16_rpn_224"}},
        "torch:timm:vit_base_patch16_rpn_224",
    ),
    "an argument that is not read": ({"args": {"use_post_norm": True}}, "'use_post_norm': True"),
    "heads that nothing says": ({"args": {"num_heads": None, "embed_dim": None}}, "'num_heads'"),
    "no name": ({"config": {"architecture": 3}}, "'architecture' is 3"),
    "arguments that are no object": ({"config": {"pretrained_cfg": [1]}}, "'pretrained_cfg' is"),
    "a tensor of another model": (
        {"tensors": lambda a: {**a, "blocks.0.attn.rel_pos.weight": a["norm.weight"]}},
        "blocks.0.attn.rel_pos.weight",
    ),
    "a tensor that is missing": (
        {"tensors": lambda a: {k: v for k, v in a.items() if k != "blocks.1.norm1.bias"}},
        "blocks.1.norm1.bias",
    ),
    "a table for no square": (
        {"tensors": lambda a: {**a, "pos_embed": a["pos_embed"][:, :14].copy()}},
        "position table of 14 rows",
    ),
    "an image that is not square": (
        {"config": {"pretrained_cfg": {"input_size": [3, 32, 40]}}},
        "'input_size' is",
    ),
    "a crop of another kind": (
        {"config": {"pretrained_cfg": {"input_size": [3, 32, 32], "crop_mode": "corner"}}},
        "'crop_mode' is 'corner'",
    ),
    "a pooling that is not read": ({"args": {"global_pool": "avgmax"}}, "'global_pool'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_read_is_one_sentence(made, tmp_path, name):
    change, words = BAD[name]
    with pytest.raises(UserError) as error:
        towers.load(changed(made, tmp_path / "model", **change), kind="image")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_model_of_timm_is_no_text_tower(made):
    with pytest.raises(UserError, match="kind 'image', not 'text'"):
        towers.load(made / "augreg", kind="text")
