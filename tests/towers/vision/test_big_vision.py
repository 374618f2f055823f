"""big_vision .npz files of three generations, made from a torch ViT's weights."""

import numpy as np
import pytest
import torch
import transformers

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers import classifier
from ape_jax.towers.files import names
from ape_jax.towers.vision import big_vision

QUICK_CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


@pytest.fixture(scope="module")
def model():
    config = transformers.ViTConfig(**QUICK_CONFIG)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="module")
def augreg(model, tmp_path_factory):
    """The model in the naming of the AugReg files, written out by hand."""
    path = tmp_path_factory.mktemp("hf")
    model.save_pretrained(path)
    t = towers.load(path, param_dtype="float32").params
    t = {"embed": t["embed"], "norm": t["norm"], "blocks": t["blocks"]}
    arrays = {
        "cls": t["embed"]["cls"][None, None],
        "embedding/kernel": t["embed"]["kernel"],
        "embedding/bias": t["embed"]["bias"],
        "Transformer/posembed_input/pos_embedding": t["embed"]["position"][None],
        "Transformer/encoder_norm/scale": t["norm"]["scale"],
        "Transformer/encoder_norm/bias": t["norm"]["bias"],
        "head/kernel": np.zeros((32, 5), np.float32),
        "head/bias": np.zeros(5, np.float32),
        "pre_logits/kernel": np.zeros((32, 32), np.float32),
        "pre_logits/bias": np.zeros(32, np.float32),
    }
    b = t["blocks"]
    for i in range(3):
        block = f"Transformer/encoderblock_{i}"
        for part in ("query", "key", "value", "out"):
            kernel = b["attention"][part]["kernel"][i]
            shape = (4, 8, 32) if part == "out" else (32, 4, 8)
            name = f"{block}/MultiHeadDotProductAttention_1/{part}"
            arrays[f"{name}/kernel"] = kernel.reshape(shape)
            bias = b["attention"][part]["bias"][i]
            arrays[f"{name}/bias"] = bias if part == "out" else bias.reshape(4, 8)
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{block}/{theirs}/scale"] = b[ours]["scale"][i]
            arrays[f"{block}/{theirs}/bias"] = b[ours]["bias"][i]
        for ours, theirs in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            arrays[f"{block}/MlpBlock_3/{theirs}/kernel"] = b["mlp"][ours]["kernel"][i]
            arrays[f"{block}/MlpBlock_3/{theirs}/bias"] = b["mlp"][ours]["bias"][i]
    return {k: np.asarray(v) for k, v in arrays.items()}


def load(path, arrays, **options):
    np.savez(path / "vit.npz", **arrays)
    return towers.load(path / "vit.npz", dtype="float32", **options)


def test_augreg_file_equals_torch_at_native_and_other_sizes(augreg, model, tmp_path):
    for size, options in ((32, {}), (48, {"image_size": 48})):
        tower = load(tmp_path, augreg, **options)
        image = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
        with torch.inference_mode():
            pixels = torch.tensor(image).permute(0, 3, 1, 2)
            want = model(pixels, interpolate_pos_encoding=True).last_hidden_state.numpy()
        got = np.asarray(tower({"image": image}).tokens)
        assert np.abs(got - want).max() < 2e-5 * np.abs(want).max()
    assert (tower.config.pooling, tower.config.family) == ("cls", "vit")


def same_params(a, b):
    flat_a, flat_b = names.flatten_dict(a, sep="/"), names.flatten_dict(b, sep="/")
    assert flat_a.keys() == flat_b.keys()
    for key in flat_a:
        np.testing.assert_array_equal(flat_a[key], flat_b[key], err_msg=key)


@pytest.mark.parametrize("prefix", ["params/", "params/img/", "opt/target/"])
@pytest.mark.parametrize("generation", ["BIG_VISION_NAMES", "SCANNED_NAMES"])
def test_newer_generations_hold_the_same_tower(augreg, tmp_path, prefix, generation):
    old = load(tmp_path, augreg)
    table = getattr(big_vision, generation)
    arrays = names.to_file(table, old.params, heads=4, prefix=prefix)
    if generation == "SCANNED_NAMES":
        name = f"{prefix}Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"
        assert arrays[name].shape == (3, 32, 4, 8)
    if prefix == "params/img/":
        arrays |= {"params/t": np.zeros(1), "params/txt/head/kernel": np.zeros((2, 2))}
    tower = load(tmp_path, arrays)
    assert tower.config == old.config
    same_params(tower.params, old.params)


def test_cls_without_a_position_of_its_own(augreg, tmp_path):
    """Newer big_vision adds positions before it puts CLS in front."""
    arrays = dict(augreg)
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    arrays["cls"] = arrays["cls"] + table[:, :1]
    arrays["pos_embedding"] = table[:, 1:]
    image = {"image": np.ones((1, 32, 32, 3), np.float32)}
    want = load(tmp_path, augreg)(image, layer=0).tokens
    tower = load(tmp_path, arrays)
    assert tower.config.position_prefix == 0
    np.testing.assert_allclose(tower(image, layer=0).tokens, want, atol=1e-6)


def test_map_head_becomes_the_pooling(tmp_path):
    module, config = towers.build(
        {"model_type": "siglip_vision_model", **QUICK_CONFIG}, dtype="float32"
    )
    rng = np.random.default_rng(0)
    shapes = names.flat_shapes(towers.abstract_params(module))
    flat = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    params = names.unflatten_dict(flat, sep="/")
    arrays = names.to_file(big_vision.SCANNED_NAMES, params, heads=4, prefix="params/img/")
    tower = load(tmp_path, arrays)
    assert tower.config.pooling == "map" and tower.config.prefix_tokens == 0
    same_params(tower.params, params)
    assert tower.config == type(config)(**(vars(config) | {"family": "vit"}))


def test_bfloat16_saved_as_raw_bytes_is_read(augreg, tmp_path):
    import ml_dtypes

    raw = {k: v.astype(ml_dtypes.bfloat16).view("V2") for k, v in augreg.items()}
    tower = load(tmp_path, raw)
    want = augreg["embedding/bias"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(tower.params["embed"]["bias"], want)


def test_pickled_objects_are_refused(augreg, tmp_path):
    arrays = augreg | {"meta": np.array({"a": 1}, dtype=object)}
    with pytest.raises(UserError, match=r"vit\.npz: entry 'meta' holds object"):
        load(tmp_path, arrays)


def test_a_file_that_is_no_vit_is_named(tmp_path):
    with pytest.raises(UserError, match=r"vit\.npz holds no big_vision ViT .*it holds w"):
        load(tmp_path, {"w": np.zeros(3)})
    (tmp_path / "vit.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(UserError, match=r"vit\.npz is no whole \.npz"):
        towers.load(tmp_path / "vit.npz")


def test_missing_and_unexpected_tensors_are_listed(augreg, tmp_path):
    arrays = augreg | {"adapter/kernel": np.zeros(3)}
    del arrays["Transformer/encoderblock_1/LayerNorm_0/bias"]
    with pytest.raises(UserError) as e:
        load(tmp_path, arrays)
    assert "missing in the file: Transformer/encoderblock_1/LayerNorm_0/bias" in str(e.value)
    assert "not in the model: adapter/kernel" in str(e.value)


def test_an_npz_holds_no_text_tower(augreg, tmp_path):
    with pytest.raises(UserError, match="image tower"):
        load(tmp_path, augreg, kind="text")


def test_preparation_is_big_visions_value_range(augreg, tmp_path):
    tower = load(tmp_path, augreg)
    white = np.full((50, 40, 3), 255, np.uint8)
    batch = tower.prepare([white, white[:30]])
    assert batch["image"].shape == (2, 32, 32, 3)
    np.testing.assert_allclose(batch["image"], 1.0)


def test_the_rows_of_an_augreg_classifier_are_the_columns_of_its_kernel(augreg, tmp_path, rng):
    arrays = {k: v for k, v in augreg.items() if not k.startswith("pre_logits")}
    arrays["head/kernel"] = rng.normal(size=(32, 5)).astype(np.float32)
    np.savez(tmp_path / "vit.npz", **arrays)
    found = classifier.read(tmp_path / "vit.npz")
    np.testing.assert_array_equal(found.rows, arrays["head/kernel"].T)
    assert (found.labels, found.pooling) == (None, "cls")


def test_a_classifier_behind_another_layer_and_a_projection_are_no_rows(augreg, tmp_path):
    arrays = augreg
    np.savez(tmp_path / "vit.npz", **arrays)
    with pytest.raises(UserError, match="reads what 'pre_logits/kernel' makes"):
        classifier.read(tmp_path / "vit.npz")
    arrays = {f"params/img/{k}": v for k, v in arrays.items() if not k.startswith("pre_logits")}
    np.savez(tmp_path / "two.npz", **arrays)
    with pytest.raises(UserError, match="holds no classifier"):
        classifier.read(tmp_path / "two.npz")
