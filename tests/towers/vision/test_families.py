"""Every vision family against transformers' torch model, through files that it saved."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from ape_jax import towers
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
VIT = SIZES | {"intermediate_size": 48, "image_size": 32, "patch_size": 8}
DINO = SIZES | {"mlp_ratio": 2, "image_size": 32, "patch_size": 8}
TEXT = SIZES | {"intermediate_size": 48, "vocab_size": 99, "max_position_embeddings": 16}
BERT = SIZES | {"intermediate_size": 48, "vocab_size": 99}
DECODER = {f"decoder_{key}": value for key, value in VIT.items() if key in SIZES}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2}
RADIO = SIZES | {"mlp_ratio": 2.0, "image_size": 32, "patch_size": 8, "max_img_size": 72}
RADIO |= {"num_cls_tokens": 3, "num_registers": 2, "summary_idxs": [0, 2]}

MODELS = {
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**VIT)),
    "vit, no qkv bias": lambda: transformers.ViTModel(
        transformers.ViTConfig(**VIT, qkv_bias=False), add_pooling_layer=False
    ),
    "vit with classifier": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**VIT)
    ),
    "deit": lambda: transformers.DeiTModel(transformers.DeiTConfig(**VIT)),
    "deit with classifiers": lambda: transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(**VIT)
    ),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**DINO)),
    "dinov2 with classifier": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(**DINO)
    ),
    "dinov2, SwiGLU": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(**DINO, use_swiglu_ffn=True)
    ),
    "dinov2, registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**DINO, num_register_tokens=3)
    ),
    "dinov3": lambda: transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**VIT, num_register_tokens=3)
    ),
    "dinov3, gated": lambda: transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(**VIT, use_gated_mlp=True, key_bias=True, mlp_bias=False)
    ),
    "pixio": lambda: transformers.PixioModel(transformers.PixioConfig(**DINO, n_cls_tokens=3)),
    "radio": lambda: transformers.RadioModel(transformers.RadioConfig(**RADIO)),
    "radio, gated": lambda: transformers.RadioModel(
        transformers.RadioConfig(**RADIO, use_swiglu_ffn=True, norm_mean=[0.1, 0.2, 0.3])
    ),
    "mlcd": lambda: transformers.MLCDVisionModel(
        transformers.MLCDVisionConfig(
            **VIT, rope_parameters={"rope_type": "axial", "rope_theta": 50.0}
        )
    ),
    "aimv2": lambda: transformers.Aimv2Model(
        transformers.Aimv2Config(
            text_config=TEXT, vision_config=VIT | {"is_native": True}, projection_dim=16
        )
    ),
    "aimv2 vision": lambda: transformers.Aimv2VisionModel(
        transformers.Aimv2VisionConfig(**VIT, qkv_bias=True, mlp_bias=True)
    ),
    "aimv2 vision, no head": lambda: transformers.Aimv2VisionModel(
        transformers.Aimv2VisionConfig(**VIT, use_head=False)
    ),
    "vit_mae": lambda: transformers.ViTMAEModel(transformers.ViTMAEConfig(**VIT, mask_ratio=0.0)),
    "vit_mae with decoder": lambda: transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(**VIT, **DECODER)
    ),
    "vit_msn": lambda: transformers.ViTMSNModel(transformers.ViTMSNConfig(**VIT)),
    "vit_msn with classifier": lambda: transformers.ViTMSNForImageClassification(
        transformers.ViTMSNConfig(**VIT)
    ),
    "ijepa": lambda: transformers.IJepaModel(transformers.IJepaConfig(**VIT)),
    "ijepa with classifier": lambda: transformers.IJepaForImageClassification(
        transformers.IJepaConfig(**VIT)
    ),
    "beit": lambda: transformers.BeitModel(
        transformers.BeitConfig(**VIT, use_relative_position_bias=True)
    ),
    "beit, CLS and shared tables": lambda: transformers.BeitModel(
        transformers.BeitConfig(
            **VIT,
            use_relative_position_bias=True,
            use_shared_relative_position_bias=True,
            use_absolute_position_embeddings=True,
            use_mean_pooling=False,
            layer_scale_init_value=0.0,
        )
    ),
    "beit with classifier": lambda: transformers.BeitForImageClassification(
        transformers.BeitConfig(**VIT, use_shared_relative_position_bias=True)
    ),
    "beit, masked": lambda: transformers.BeitForMaskedImageModeling(
        transformers.BeitConfig(**VIT, use_relative_position_bias=True, use_mask_token=True)
    ),
    "data2vec-vision": lambda: transformers.Data2VecVisionModel(
        transformers.Data2VecVisionConfig(**VIT, use_relative_position_bias=True)
    ),
    "data2vec-vision with classifier": lambda: transformers.Data2VecVisionForImageClassification(
        transformers.Data2VecVisionConfig(**VIT, use_shared_relative_position_bias=True)
    ),
    "tipsv2": lambda: transformers.Tipsv2Model(
        transformers.Tipsv2Config(text_config=TEXT, vision_config=DINO)
    ),
    "tipsv2 vision, SwiGLU": lambda: transformers.Tipsv2VisionModel(
        transformers.Tipsv2VisionConfig(**DINO, use_swiglu_ffn=True, num_register_tokens=2)
    ),
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=VIT, projection_dim=16)
    ),
    "clip vision": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VIT)),
    "clip vision with projection": lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**VIT, projection_dim=16)
    ),
    "metaclip_2": lambda: transformers.MetaClip2Model(
        transformers.MetaClip2Config(text_config=TEXT, vision_config=VIT, projection_dim=16)
    ),
    "metaclip_2 vision": lambda: transformers.MetaClip2VisionModel(
        transformers.MetaClip2VisionConfig(**VIT)
    ),
    "chinese_clip": lambda: transformers.ChineseCLIPModel(
        transformers.ChineseCLIPConfig(text_config=BERT, vision_config=VIT, projection_dim=16)
    ),
    "chinese_clip vision": lambda: transformers.ChineseCLIPVisionModel(
        transformers.ChineseCLIPVisionConfig(**VIT)
    ),
    "altclip": lambda: transformers.AltCLIPModel(
        transformers.AltCLIPConfig(
            text_config=BERT | {"project_dim": 16}, vision_config=VIT, projection_dim=16
        )
    ),
    "altclip vision": lambda: transformers.AltCLIPVisionModel(
        transformers.AltCLIPVisionConfig(**VIT)
    ),
    "blip": lambda: transformers.BlipForImageTextRetrieval(
        transformers.BlipConfig(text_config=BERT, vision_config=VIT)
    ),
    "blip with decoder": lambda: transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(text_config=BERT, vision_config=VIT)
    ),
    "blip vision": lambda: transformers.BlipVisionModel(transformers.BlipVisionConfig(**VIT)),
    "siglip": lambda: transformers.SiglipModel(
        transformers.SiglipConfig(text_config=TEXT, vision_config=VIT)
    ),
    "siglip vision": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VIT)),
    "siglip vision, no head": lambda: transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(**VIT, vision_use_head=False)
    ),
}
COMPARED = (
    "vit, no qkv bias",
    "vit with classifier",
    "deit",
    "dinov2",
    "dinov2, SwiGLU",
    "dinov2, registers",
    "dinov3",
    "dinov3, gated",
    "pixio",
    "radio",
    "radio, gated",
    "mlcd",
    "aimv2",
    "vit_mae",
    "vit_msn",
    "ijepa",
    "beit",
    "beit, CLS and shared tables",
    "data2vec-vision",
    "tipsv2",
    "tipsv2 vision, SwiGLU",
    "clip",
    "metaclip_2",
    "chinese_clip",
    "altclip",
    "blip",
    "siglip",
)


# Those that take images of any size without being asked.
_ANY_SIZE = ("Dinov2", "DINOv3", "Tipsv2", "Pixio", "Radio", "MLCD", "Aimv2", "Beit", "Data2Vec")


def save(name, path):
    """A saved model in which every parameter is random: zero biases would hide mistakes."""
    model = MODELS[name]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if parameter.ndim == 1:
                parameter.add_(0.5)
    model.save_pretrained(path, safe_serialization=True)
    return model.eval()


def backbone(model):
    for name in ("vision_model", "vit", "deit", "dinov2", "ijepa", "beit", "data2vec_vision"):
        model = getattr(model, name, model)
    return model


def run(model, image):
    model = backbone(model)
    # The DINOv2 classes always interpolate; the others must be asked to.
    always = type(model).__name__.startswith(_ANY_SIZE)
    asks = {} if always else {"interpolate_pos_encoding": True}
    if "MAE" in type(model).__name__:  # It shuffles the patches by this noise.
        patches = image.shape[1] * image.shape[2] // 8**2
        asks["noise"] = torch.arange(patches).expand(len(image), -1)
    with torch.inference_mode():
        pixels = torch.tensor(image).permute(0, 3, 1, 2)
        return model(pixels, output_hidden_states=True, **asks)


def relative(got, want):
    want = want.numpy()
    assert got.shape == want.shape
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def encode(tower, image, **options):
    """`tower.apply`, compiled without optimisation: compiling is what these tests cost."""
    run = jax.jit(lambda params, batch: tower.tower.apply(params, batch, **options))
    run = run.lower(tower.params, {"image": image}).compile()
    return run(tower.params, {"image": image})


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """(the model, the tower loaded from what it saved, its directory)."""
    path = tmp_path_factory.mktemp("model")
    model = save(request.param, path)
    return model, towers.load(path, kind="image", dtype="float32"), path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("pair", COMPARED, indirect=True)
def test_outputs_equal_transformers_at_native_and_other_sizes(pair, rng):
    model, tower, _ = pair
    for height, width in ((32, 32), (40, 24)):
        image = rng.normal(size=(2, height, width, 3)).astype(np.float32)
        want, got = run(model, image), encode(tower, image)
        assert relative(got.tokens, want.last_hidden_state) < 2e-5
        if tower.config.family in (
            "blip",
            "dinov2",
            "dinov3",
            "tipsv2",
            "pixio",
            "mlcd",
            "aimv2",
            "clip",
            "siglip",
        ):
            assert relative(got.pooled, want.pooler_output) < 2e-5
        if tower.config.family == "beit" and want.pooler_output is not None:
            assert relative(got.pooled, want.pooler_output) < 2e-5
        elif tower.config.family in ("vit_mae", "ijepa", "beit"):
            patches = want.last_hidden_state[:, tower.config.prefix_tokens :]
            assert relative(got.pooled, patches.mean(1)) < 2e-5
        assert got.mask.all() and got.mask.shape == got.tokens.shape[:2]
    inner = encode(tower, image, layer=2, pooling="none")
    assert relative(inner.tokens, want.hidden_states[2]) < 2e-5


@pytest.mark.parametrize("pair", MODELS, indirect=True)
def test_every_saved_form_loads_and_goes_back_to_the_same_file(pair):
    _, tower, path = pair
    family = FAMILIES[tower.config.family]
    arrays = load_file(path / "model.safetensors")
    written = [
        (
            names.to_file(table, tower.params, heads=tower.config.heads, prefix=prefix),
            {table.old_spelling(name): array for name, array in arrays.items()},
        )
        for table in family.tables
        for prefix in table.prefixes
    ]
    best, in_file = max(written, key=lambda both: len(both[0].keys() & both[1].keys()))
    for key, array in best.items():
        np.testing.assert_array_equal(array, in_file[key], err_msg=key)


def test_image_size_gives_the_tower_that_interpolation_gives(tmp_path, rng):
    model = save("dinov2, registers", tmp_path)
    tower = towers.load(tmp_path, dtype="float32", image_size=24)
    assert tower.params["embed"]["position"].shape == (1 + 9, 32)
    assert tower.prepare.transform.size == 24
    image = rng.normal(size=(2, 24, 24, 3)).astype(np.float32)
    assert relative(encode(tower, image).tokens, run(model, image).last_hidden_state) < 2e-5


def test_image_size_resizes_tables_of_relative_positions(tmp_path, rng):
    model = save("beit, CLS and shared tables", tmp_path)
    tower = towers.load(tmp_path, dtype="float32", image_size=24)
    rows = (2 * 3 - 1) ** 2 + 3
    assert tower.params["relative_bias"].shape == (rows, 4)
    assert tower.params["blocks"]["attention"]["relative"].shape == (3, rows, 4)
    image = rng.normal(size=(2, 24, 24, 3)).astype(np.float32)
    assert relative(encode(tower, image).tokens, run(model, image).last_hidden_state) < 2e-5


def test_a_remainder_of_pixels_is_cut_off_as_in_torch(tmp_path, rng):
    model = save("dinov2", tmp_path)
    image = rng.normal(size=(2, 37, 35, 3)).astype(np.float32)
    tower = towers.load(tmp_path, dtype="float32")
    want = run(model, image).last_hidden_state
    assert relative(encode(tower, image).tokens, want) < 2e-5


def test_mean_pooling_leaves_prefix_tokens_out(tmp_path, rng):
    save("dinov2, registers", tmp_path)
    tower = towers.load(tmp_path, dtype="float32")
    image = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    out = encode(tower, image, pooling="cls+mean")
    tokens = np.asarray(out.tokens)
    want = np.concatenate([tokens[:, 0], tokens[:, 4:].mean(1)], axis=-1)
    np.testing.assert_allclose(out.pooled, want, rtol=1e-5, atol=1e-5)


def test_bfloat16_parameters_and_products_stay_close(tmp_path, rng):
    model = save("dinov2", tmp_path)
    tower = towers.load(tmp_path, param_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(tower.params)} == {"bfloat16"}
    image = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    out = encode(tower, image)
    assert out.tokens.dtype == np.float32
    assert relative(out.tokens, run(model, image).last_hidden_state) < 0.05


def test_clip_pools_normed_tokens_but_returns_them_as_transformers_does(tmp_path, rng):
    model = save("clip vision", tmp_path)
    tower = towers.load(tmp_path, dtype="float32")
    image = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    out, want = encode(tower, image, pooling="mean"), run(model, image)
    with torch.inference_mode():
        mean = model.post_layernorm(want.last_hidden_state)[:, 1:].mean(1)
    assert relative(out.tokens, want.last_hidden_state) < 2e-5
    assert relative(out.pooled, mean) < 2e-5


def test_defaults_are_those_of_the_transformers_configs():
    """A config.json leaves out what is default, so the defaults must agree."""
    classes = {
        "vit": transformers.ViTConfig,
        "deit": transformers.DeiTConfig,
        "dinov2": transformers.Dinov2Config,
        "dinov2_with_registers": transformers.Dinov2WithRegistersConfig,
        "dinov3_vit": transformers.DINOv3ViTConfig,
        "pixio": transformers.PixioConfig,
        "radio": transformers.RadioConfig,
        "mlcd_vision_model": transformers.MLCDVisionConfig,
        "aimv2_vision_model": transformers.Aimv2VisionConfig,
        "vit_mae": transformers.ViTMAEConfig,
        "vit_msn": transformers.ViTMSNConfig,
        "ijepa": transformers.IJepaConfig,
        "beit": transformers.BeitConfig,
        "data2vec-vision": transformers.Data2VecVisionConfig,
        "tipsv2_vision_model": transformers.Tipsv2VisionConfig,
        "clip_vision_model": transformers.CLIPVisionConfig,
        "metaclip_2_vision_model": transformers.MetaClip2VisionConfig,
        "chinese_clip_vision_model": transformers.ChineseCLIPVisionConfig,
        "altclip_vision_model": transformers.AltCLIPVisionConfig,
        "blip_vision_model": transformers.BlipVisionConfig,
        "siglip_vision_model": transformers.SiglipVisionConfig,
    }
    for model_type, config_class in classes.items():
        full = config_class().to_dict()
        full["model_type"] = model_type
        _, ours = towers.build({"model_type": model_type})
        _, theirs = towers.build(full)
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs), model_type


def test_what_radio_s_own_files_lack_is_one(tmp_path, rng):
    model = save("radio", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    own = {name: array for name, array in tensors.items() if "layer_scale" not in name}
    assert len(own) == len(tensors) - 6
    save_file(own, tmp_path / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_scale" in name:
                parameter.fill_(1.0)
    image = rng.normal(size=(2, 96, 80, 3)).astype(np.float32)
    tower = towers.load(tmp_path, dtype="float32", image_size=96)
    got, want = encode(tower, image), run(model, image)
    assert relative(got.tokens, want.last_hidden_state) < 2e-5
    assert relative(got.pooled, want.summary) < 2e-5
