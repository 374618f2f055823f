"""Adapters and LoRA from outside: silent at zero, right against torch, merged without a trace."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import unflatten_dict

from ape_jax.align.tuning import peft, selection
from ape_jax.align.tuning.tuned import Tuned
from ape_jax.errors import UserError

WIDE = ".*/(query|key|value|out|fc1|fc2)"


def pooling_of(tower):
    return tower.config.pooling if tower.config.kind == "image" else "none"


def tuned_of(tower, tune, **options):
    return Tuned(
        tower=tower.tower, tune=tune, pooling=pooling_of(tower), options=peft.Options(**options)
    )


def mapped(function, tree):
    """A tree of `function(name, leaf)`."""
    flat = {name: function(name, leaf) for name, leaf in selection.flatten(tree).items()}
    return unflatten_dict(flat, sep="/")


def randomized(tree, seed=0, where="/"):
    rng = np.random.default_rng(seed)

    def draw(name, leaf):
        return (
            jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32) if where in name else leaf
        )

    return mapped(draw, tree)


def unfused(function):
    """Compiled op by op.

    XLA fuses what is added into the sums of a norm, and LLVM adds those up in another order: the
    last bit would tell of the compiler and not of the tower.
    """
    return jax.jit(function, compiler_options={"xla_disable_hlo_passes": "fusion"})


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        *((family, {}) for family in ("vit", "siglip", "bert", "mpnet")),
        # Their blocks are those of the first two families.
        *(pytest.param(f, {}, marks=pytest.mark.slow) for f in ("dinov2", "clip_vision")),
        pytest.param("clip_text", {}, marks=pytest.mark.slow),
        pytest.param("vit", {"unroll": True}, marks=pytest.mark.slow),
        ("bert", {"unroll": True}),
        ("bert", {"remat": "blocks"}),
    ],
    ids=str,
)
@pytest.mark.usefixtures("fully_compiled")
def test_zero_adapters_and_fresh_lora_change_no_bit(random_tower, batch_for, family, fields):
    tower = random_tower(family, **fields)
    tuned = tuned_of(tower, "adapter+lora", lora_targets=WIDE)
    trainable, frozen = tuned.init(jax.random.key(0), tower.params)
    zero = {"/adapter/up/": lambda x: 0 * x}
    trainable = mapped(
        lambda name, leaf: next((f(leaf) for k, f in zero.items() if k in name), leaf), trainable
    )
    batch = batch_for(tower)

    def plain(params):
        return tower.tower.apply(params, batch, pooling=tuned.pooling)

    want = unfused(plain)(tower.params)
    got = unfused(tuned.apply)(trainable, frozen, batch)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    fused = jax.jit(tuned.apply)(trainable, frozen, batch)
    scale = np.abs(want.tokens).max()
    np.testing.assert_allclose(fused.tokens / scale, want.tokens / scale, atol=2e-6)


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_fresh_adapters_and_trained_lora_do_change_something(random_tower, batch_for, family):
    tower = random_tower(family)
    batch = batch_for(tower)
    plain = tower(batch, pooling=pooling_of(tower)).tokens
    for tune, where in (("adapter", "/adapter/up/bias"), ("lora", "/lora/up/")):
        tuned = tuned_of(tower, tune)
        trainable, frozen = tuned.init(jax.random.key(0), tower.params)
        out = jax.jit(tuned.apply)(randomized(trainable, where=where), frozen, batch)
        assert np.abs(out.tokens - plain).max() > 1e-3


@pytest.mark.parametrize("family", ["siglip", "bert"])
def test_merged_lora_equals_unmerged(random_tower, batch_for, family):
    tower = random_tower(family)
    tuned = tuned_of(tower, "lora", lora_targets=WIDE, lora_rank=3, lora_alpha=5.0)
    trainable, frozen = tuned.init(jax.random.key(0), tower.params)
    trainable, batch = randomized(trainable), batch_for(tower)
    unmerged = jax.jit(tuned.apply)(trainable, frozen, batch)
    params = peft.merge_lora(selection.merge(trainable, frozen), 5.0)
    assert jax.tree.structure(params) == jax.tree.structure(dict(tower.params))
    merged = dataclasses.replace(tower, params=params)(batch, pooling=tuned.pooling)
    scale = np.abs(unmerged.tokens).max()
    np.testing.assert_allclose(merged.tokens / scale, unmerged.tokens / scale, atol=1e-5)


def test_merged_lora_is_the_scaled_product():
    rng = np.random.default_rng(0)
    shapes = (2, 4, 6), (2, 4, 3), (2, 3, 6)
    kernel, down, up = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    lora = {"down": {"kernel": down}, "up": {"kernel": up}}
    merged = peft.merge_lora({"fc1": {"kernel": kernel, "lora": lora}}, alpha=6.0)
    np.testing.assert_allclose(merged["fc1"]["kernel"], kernel + 2.0 * down @ up, atol=1e-5)
    assert set(merged["fc1"]) == {"kernel"}


def test_lora_goes_where_the_regular_expression_says(random_tower):
    tower = random_tower("bert")
    tuned = tuned_of(tower, "lora", lora_targets="blocks/mlp/fc.", lora_rank=5)
    trainable, _ = tuned.init(jax.random.key(0), tower.params)
    shapes = {name: leaf.shape for name, leaf in selection.flatten(trainable).items()}
    assert shapes == {
        "blocks/mlp/fc1/lora/down/kernel": (3, 32, 5),
        "blocks/mlp/fc1/lora/up/kernel": (3, 5, 64),
        "blocks/mlp/fc2/lora/down/kernel": (3, 64, 5),
        "blocks/mlp/fc2/lora/up/kernel": (3, 5, 32),
    }


def test_lora_without_a_match_names_what_there_is(random_tower):
    tower = random_tower("bert")
    tuned = tuned_of(tower, "lora", lora_targets=".*/qkv")
    with pytest.raises(UserError, match=r"lora_targets: '\.\*/qkv' .*blocks/attention/key"):
        tuned.init(jax.random.key(0), tower.params)


def test_a_reduction_that_does_not_divide_is_a_user_error(random_tower):
    tower = random_tower("vit")
    with pytest.raises(UserError, match="adapter_reduction: 5 does not divide the 32"):
        tuned_of(tower, "adapter", adapter_reduction=5).init(jax.random.key(0), tower.params)


def test_adapters_begin_as_lilts(random_tower):
    tower = random_tower("vit")
    trainable, _ = tuned_of(tower, "adapter").init(jax.random.key(0), tower.params)
    leaves = selection.flatten(trainable)
    kernels = np.concatenate([x.ravel() for n, x in leaves.items() if n.endswith("kernel")])
    assert abs(kernels.std() - 0.02) < 0.002
    assert not any(np.any(x) for n, x in leaves.items() if n.endswith("bias"))


class Torch:
    """LilT's blocks, written down in torch from its description and not from our code."""

    def __init__(self, params, layer, heads, eps):
        leaves = selection.flatten(params["blocks"])
        self.p = {k: torch.tensor(np.asarray(v[layer], np.float64)) for k, v in leaves.items()}
        self.heads, self.eps = heads, eps

    def dense(self, x, name):
        return x @ self.p[f"{name}/kernel"] + self.p[f"{name}/bias"]

    def norm(self, x, name):
        scale, bias = self.p[f"{name}/scale"], self.p[f"{name}/bias"]
        return torch.nn.functional.layer_norm(x, x.shape[-1:], scale, bias, self.eps)

    def adapter(self, x, name):
        hidden = torch.nn.functional.gelu(self.dense(x, f"{name}/adapter/down"))
        return x + self.dense(hidden, f"{name}/adapter/up")

    def attention(self, x, mask):
        split = (*x.shape[:2], self.heads, -1)
        q, k, v = (
            self.dense(x, f"attention/{n}").reshape(split).transpose(1, 2)
            for n in ("query", "key", "value")
        )
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.dense(y.transpose(1, 2).reshape(x.shape), "attention/out")

    def mlp(self, x):
        return self.dense(torch.nn.functional.gelu(self.dense(x, "mlp/fc1")), "mlp/fc2")

    def vit_block(self, x):
        x = x + self.attention(self.norm(self.adapter(x, "norm1"), "norm1"), None)
        return x + self.mlp(self.norm(self.adapter(x, "norm2"), "norm2"))

    def bert_layer(self, x, mask):
        y = self.adapter(self.attention(x, mask), "attention/out")
        x = self.norm(x + y, "norm1")
        return self.norm(x + self.adapter(self.mlp(x), "mlp/fc2"), "norm2")


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_a_tower_with_adapters_equals_lilts_blocks_in_torch(random_tower, batch_for, family):
    tower = random_tower(family)
    tuned = Tuned(tower=tower.tower, tune="adapter", layer=3, pooling="none")
    trainable, frozen = tuned.init(jax.random.key(0), tower.params)
    trainable, batch = randomized(trainable), batch_for(tower)
    got = jax.jit(tuned.apply)(trainable, frozen, batch)
    start = tower(batch, layer=0, pooling="none")
    x = torch.tensor(np.asarray(start.tokens, np.float64))
    mask = torch.tensor(np.asarray(start.mask))[:, None, None, :]
    params = selection.merge(trainable, frozen)
    for layer in range(3):
        block = Torch(params, layer, tower.config.heads, tower.config.norm_eps)
        x = block.vit_block(x) if family == "vit" else block.bert_layer(x, mask)
    real = np.asarray(start.mask)
    want = x.numpy()[real]
    assert np.abs(np.asarray(got.tokens)[real] - want).max() <= 1e-5 * np.abs(want).max()
