"""ConvNets against transformers' torch models, through files that they saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from ape_jax import towers
from ape_jax.align.tuning import selection
from ape_jax.align.tuning.tuned import Tuned
from ape_jax.errors import UserError
from ape_jax.nn.convolution import DepthwiseConv
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names

SIZES = {"hidden_sizes": [8, 32], "depths": [1, 2], "image_size": 32}
STAGES = SIZES | {"num_stages": 2}
MODELS = {
    "convnext": lambda: transformers.ConvNextModel(transformers.ConvNextConfig(**STAGES)),
    "convnext, no layer scale": lambda: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(**STAGES, layer_scale_init_value=0.0, patch_size=2)
    ),
    "convnextv2": lambda: transformers.ConvNextV2ForImageClassification(
        transformers.ConvNextV2Config(**STAGES)
    ),
    "dinov3_convnext": lambda: transformers.DINOv3ConvNextModel(
        transformers.DINOv3ConvNextConfig(**SIZES)
    ),
}
COMPARED = ("convnext", "convnextv2", "dinov3_convnext")


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """(the model, every parameter of it random; the tower loaded from what it saved; where)."""
    path = tmp_path_factory.mktemp("model")
    model, generator = MODELS[request.param](), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if parameter.ndim == 1:
                parameter.add_(0.5)
    model.save_pretrained(path)
    return model.eval(), towers.load(path, dtype="float32"), path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def encode(tower, image, **options):
    run = jax.jit(lambda params, batch: tower.tower.apply(params, batch, **options))
    return run.lower(tower.params, {"image": image}).compile()(tower.params, {"image": image})


def relative(got, want):
    want = np.asarray(want)
    assert got.shape == want.shape
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


@pytest.mark.parametrize("pair", COMPARED, indirect=True)
def test_outputs_equal_transformers_at_native_and_other_sizes(pair, rng):
    model, tower, _ = pair
    model = getattr(model, "convnextv2", model)
    for height, width in ((32, 32), (50, 35), (16, 64)):
        image = rng.normal(size=(2, height, width, 3)).astype(np.float32)
        with torch.inference_mode():
            want = model(torch.tensor(image).permute(0, 3, 1, 2))
        got, tokens = encode(tower, image), want.last_hidden_state
        tokens = tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens
        assert relative(got.tokens, tokens) < 2e-5
        assert relative(got.pooled, want.pooler_output) < 2e-5
        assert got.mask.all() and got.mask.shape == got.tokens.shape[:2]


@pytest.mark.parametrize("pair", MODELS, indirect=True)
def test_every_saved_form_goes_back_to_the_same_file(pair):
    _, tower, path = pair
    in_file = load_file(path / "model.safetensors")
    table = FAMILIES[tower.config.family].tables[0]
    written = [names.to_file(table, tower.params, heads=1, prefix=p) for p in table.prefixes]
    best = max(written, key=lambda arrays: len(arrays.keys() & in_file.keys()))
    assert in_file.keys() - best.keys() <= {"classifier.weight", "classifier.bias"}
    for key, array in best.items():
        np.testing.assert_array_equal(array, in_file[key], err_msg=key)


@pytest.mark.parametrize("pair", ["convnextv2"], indirect=True)
def test_only_the_output_is_read(pair, rng):
    _, tower, _ = pair
    image = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    for layer in (0, 2, -2):
        with pytest.raises(UserError, match=f"layer is {layer}; .* only its output"):
            tower({"image": image}, layer=layer)
    assert encode(tower, image, pooling="none").pooled is None


@pytest.mark.parametrize("pair", ["convnext", "convnextv2"], indirect=True)
def test_every_parameter_has_a_group_and_modes_train_those(pair):
    _, tower, _ = pair
    trained = {}
    for tune in ("full", "layernorm", "bitfit", "lora"):
        options = dataclasses.replace(
            Tuned(tower=tower.tower).options, lora_targets=".*/mlp/fc[12]"
        )
        tuned = Tuned(tower=tower.tower, tune=tune, pooling="mean", options=options)
        trainable, frozen = tuned.init(jax.random.key(0), tower.params)
        trained[tune] = selection.counts({"image_tower": trainable}, {"image_tower": frozen})[0]
    sizes = selection.flatten(tower.params)
    assert {selection.group(name) for name in sizes} <= {
        "norm scale", "norm bias", "bias", "kernel", "layer scale", "patch embedding",
        "convolution", "response norm",
    }  # fmt: skip
    norms = 2 * (8 + 8 * 1 + 8 + 32 * 2 + 32)  # stem, block, down, blocks, last
    assert trained["layernorm"] == norms
    assert trained["full"] == sum(a.size for a in sizes.values())
    assert trained["lora"] == sum(n * 8 * 2 * 5 * w for n, w in ((1, 8), (2, 32)))
    biases = sum(a.size for name, a in sizes.items() if name.endswith("bias"))
    assert trained["bitfit"] == biases


@pytest.mark.parametrize("pair", ["convnext"], indirect=True)
@pytest.mark.parametrize(
    ("tune", "words"),
    [("top:1", "above 0 blocks"), ("adapter+bitfit", "names no layers"), ("append", "no blocks")],
)
def test_modes_that_need_blocks_of_one_width_are_refused(pair, tune, words):
    tuned = Tuned(tower=pair[1].tower, tune=tune, pooling="mean")
    with pytest.raises(UserError, match=words):
        tuned.init(jax.random.key(0), pair[1].params)


@pytest.mark.parametrize("pair", ["convnextv2"], indirect=True)
def test_int8_and_fast_inference_stay_close(pair, rng):
    _, tower, path = pair
    image = rng.normal(size=(3, 32, 32, 3)).astype(np.float32)
    want = encode(tower, image).pooled
    narrow = towers.load(path, param_dtype="int8", dtype="float32")
    assert narrow.params["stages_1"]["blocks"]["mlp"]["fc1"]["kernel"].dtype == np.int8
    assert 1e-4 < relative(encode(narrow, image).pooled, want) < 0.05
    fast = dataclasses.replace(tower.tower, module=tower.tower.module.clone(inference=True))
    fast = dataclasses.replace(tower, tower=fast)
    assert relative(encode(fast, image).pooled, want) < 2e-5


def test_depthwise_convolution_equals_torch(rng):
    x = jnp.asarray(rng.normal(size=(2, 5, 9, 4)), jnp.float32)
    kernel, bias = rng.normal(size=(7, 7, 4)), rng.normal(size=4)
    params = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    got = DepthwiseConv().apply({"params": params}, x)
    weight = torch.tensor(params["kernel"]).permute(2, 0, 1)[:, None]
    want = torch.nn.functional.conv2d(
        torch.tensor(np.asarray(x)).permute(0, 3, 1, 2),
        weight,
        torch.tensor(params["bias"]),
        padding=3,
        groups=4,
    )
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_defaults_are_those_of_the_transformers_configs():
    classes = {
        "convnext": transformers.ConvNextConfig,
        "convnextv2": transformers.ConvNextV2Config,
        "dinov3_convnext": transformers.DINOv3ConvNextConfig,
    }
    for model_type, config_class in classes.items():
        _, ours = towers.build({"model_type": model_type})
        _, theirs = towers.build({**config_class().to_dict(), "model_type": model_type})
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs), model_type
