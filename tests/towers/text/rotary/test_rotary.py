"""BERTs with rotary positions, and ModernBERT, against transformers."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import transformers as t

from ape_jax import towers
from ape_jax.align.tuning.selection import flatten, group
from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names
from ape_jax.towers.loading import abstract_params

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
MODERN = SIZES | {"local_attention": 4, "pad_token_id": 0}
YARN = {"rope_type": "yarn", "factor": 3.0, "rope_theta": 100.0}
YARN |= {"original_max_position_embeddings": 8}
MODELS = {
    "nomic_bert": lambda: t.NomicBertModel(t.NomicBertConfig(**SIZES)),
    "nomic_bert, wide heads": lambda: t.NomicBertModel(t.NomicBertConfig(**SIZES, head_dim=12)),
    "gte": lambda: t.GteModel(t.GteConfig(**SIZES)),
    "gte, YaRN": lambda: t.GteModel(t.GteConfig(**SIZES, rope_parameters=YARN)),
    "modernbert, scaled": lambda: t.ModernBertModel(
        t.ModernBertConfig(
            **MODERN,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        )
    ),
    "gte, no types": lambda: t.GteModel(
        t.GteConfig(**SIZES, type_vocab_size=0, hidden_act="gelu_new")
    ),
    "jina_embeddings_v3": lambda: t.JinaEmbeddingsV3Model(
        t.JinaEmbeddingsV3Config(**SIZES, rope_parameters={"rope_theta": 50.0})
    ),
    "modernbert": lambda: t.ModernBertModel(t.ModernBertConfig(**MODERN)),
    "modernbert, biases, local first": lambda: t.ModernBertModel(
        t.ModernBertConfig(
            **MODERN,
            norm_bias=True,
            attention_bias=True,
            mlp_bias=True,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
}


def padded(reference):
    """A batch padded on the right, and the same texts padded on the left."""
    right = reference.batch(0)
    rolls = right["ids"].shape[1] - right["mask"].sum(1)
    left = {
        name: np.stack([np.roll(row, roll) for row, roll in zip(array, rolls)])
        for name, array in right.items()
    }
    return right, left


@pytest.mark.parametrize("name", MODELS)
def test_every_real_token_equals_transformers(tmp_path, text_reference, capsys, name):
    model = text_reference.randomize(MODELS[name]())
    path = text_reference.save(model, tmp_path)
    tower = towers.load(path, kind="text", dtype="float32")
    assert "not read" not in capsys.readouterr().err
    batches = padded(text_reference)

    def every(params, batch):
        outs = [tower.tower.apply(params, batch, layer=layer) for layer in (-1, 0, 1, 2)]
        rest = tower.tower.resume(params, outs[3].tokens, outs[3].mask, start=2)
        return [*outs, rest]

    run = jax.jit(every).lower(tower.params, batches[0]).compile()
    for batch in batches:
        want, mask = text_reference.run(model, batch), batch["mask"]
        final, *inner, rest = run(tower.params, batch)
        assert np.isfinite(np.asarray(final.tokens)).all()
        for out in (final, rest):
            text_reference.assert_close(np.asarray(out.tokens)[mask], want.tokens[mask])
        for out, hidden in zip(inner, want.hidden):
            text_reference.assert_close(np.asarray(out.tokens)[mask], hidden[mask])


@pytest.mark.parametrize("name", ["nomic_bert", "gte", "jina_embeddings_v3"])
def test_transformers_own_names_are_read_too(tmp_path, text_reference, name):
    model = text_reference.randomize(MODELS[name]())
    path = text_reference.save(model, tmp_path / "a")
    tower = towers.load(path, kind="text")
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    again = towers.load(path, kind="text")
    for one, two in zip(jax.tree.leaves(tower.params), jax.tree.leaves(again.params)):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("nomic_bert", t.NomicBertForMaskedLM),
        ("gte", t.GteForMaskedLM),
        ("gte", t.GteForSequenceClassification),
        ("jina_embeddings_v3", t.JinaEmbeddingsV3ForMaskedLM),
        ("modernbert", t.ModernBertForMaskedLM),
        ("modernbert", t.ModernBertForSequenceClassification),
    ],
    ids=str,
)
def test_files_of_task_models_load_without_their_heads(tmp_path, text_reference, name, task):
    model = text_reference.randomize(task(MODELS[name]().config))
    plain = text_reference.save(model.base_model, tmp_path / "plain")
    whole = text_reference.save(model, tmp_path / "whole")
    one, two = (towers.load(path, kind="text").params for path in (plain, whole))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("name", MODELS)
def test_exported_files_are_those_of_the_class(tmp_path, text_reference, name):
    model = text_reference.randomize(MODELS[name]())
    tower = towers.load(text_reference.save(model, tmp_path), kind="text")
    family = FAMILIES[tower.config.family]
    described = family.torch.describe(tower.config, tower.config.pooling)
    assert isinstance(t.AutoConfig.for_model(**described), type(model.config))
    table = family.torch.table(tower.config)
    (tmp_path / "again").mkdir()
    text_reference.write_tokenizer(tmp_path / "again")
    (tmp_path / "again" / "config.json").write_text(json.dumps(described))
    files = names.to_file(table, tower.params, heads=tower.config.heads)
    safetensors.numpy.save_file(files, tmp_path / "again" / "model.safetensors")
    other, problems = type(model).from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not problems["unexpected_keys"]
    assert all("pooler" in key for key in problems["missing_keys"])
    batch = text_reference.batch(0)
    got, want = (text_reference.run(m.eval(), batch).tokens for m in (other, model))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_a_group(tmp_path, name):
    MODELS[name]().config.save_pretrained(tmp_path)
    module, _ = towers.build(tmp_path)
    for leaf in flatten(abstract_params(module)):
        assert group(leaf) != leaf


def test_nomics_own_config_is_read_as_transformers_one(tmp_path):
    t.NomicBertConfig(**SIZES).save_pretrained(tmp_path)
    _, want = towers.build(tmp_path)
    own = {
        "model_type": "nomic_bert",
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_inner": 48,
        "n_positions": 24,
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "vocab_size": 60,
        "type_vocab_size": 2,
        "activation_function": "swiglu",
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_fraction": 1.0,
    }
    _, got = towers.build(own)
    assert got == want


@pytest.mark.parametrize(
    ("key", "value"), [("prenorm", True), ("num_experts", 8), ("rotary_emb_fraction", 0.5)]
)
def test_nomics_other_models_are_refused(key, value):
    with pytest.raises(UserError, match=key):
        towers.build({"model_type": "nomic_bert", "n_embd": 32, key: value})


def test_older_modernbert_configs_say_how_many_blocks_to_one(tmp_path):
    t.ModernBertConfig(**MODERN | {"num_hidden_layers": 5}).save_pretrained(tmp_path)
    _, want = towers.build(tmp_path)
    older = MODERN | {"num_hidden_layers": 5, "global_attn_every_n_layers": 3}
    older |= {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    _, got = towers.build({"model_type": "modernbert", **older})
    assert got == want
    assert got.kinds == (2, 1, 1, 0, 1)


def test_the_rest_of_the_first_norm_is_of_ones(tmp_path, text_reference):
    path = text_reference.save(text_reference.randomize(MODELS["modernbert"]()), tmp_path)
    scale = towers.load(path, kind="text").params["blocks"]["norm1"]["scale"]
    np.testing.assert_array_equal(scale[0], 1)
    assert (np.asarray(scale[1:]) != 1).all()


def test_a_kind_of_scaling_that_is_not_known_is_refused():
    scaled = {"rope_type": "longrope", "factor": 4.0, "rope_theta": 1000.0}
    with pytest.raises(UserError, match="longrope"):
        towers.build({"model_type": "gte", **SIZES, "rope_parameters": scaled})
