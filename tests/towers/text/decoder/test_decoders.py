"""Qwen, Llama, Mistral, EuroBERT and Gemma against transformers."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
import transformers as t
from flax.traverse_util import unflatten_dict

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
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GEMMA3 = {**SIZES, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24}


def qwen3(**more):
    return t.Qwen3Model(t.Qwen3Config(**{**SIZES, "head_dim": 16, **more}))


def qwen2(**more):
    return t.Qwen2Model(t.Qwen2Config(**SIZES, **more))


def llama(**more):
    return t.LlamaModel(t.LlamaConfig(**SIZES, **more))


def mistral(**more):
    return t.MistralModel(t.MistralConfig(**SIZES, **more))


def eurobert(**more):
    return t.EuroBertModel(t.EuroBertConfig(**SIZES, **more))


def gemma(**more):
    return t.GemmaModel(t.GemmaConfig(**{**SIZES, "head_dim": 16, **more}))


def gemma3(**more):
    return t.Gemma3TextModel(t.Gemma3TextConfig(**{**GEMMA3, **more}))


MODELS = {
    "qwen3": qwen3,
    "qwen3, biases, window": lambda: qwen3(attention_bias=True, **WINDOW),
    "qwen3, yarn": lambda: qwen3(rope_parameters={**YARN, "rope_theta": 1e6}),
    "qwen2": lambda: qwen2(rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "qwen2, both ways": lambda: qwen2(is_causal=False, **WINDOW),
    "llama": llama,
    "llama, biases": lambda: llama(attention_bias=True, mlp_bias=True, head_dim=6),
    "llama, llama3": lambda: llama(rope_parameters={**LLAMA3, "rope_theta": 5e5}),
    "llama, linear": lambda: llama(rope_parameters={"rope_type": "linear", "factor": 4.0}),
    "mistral": lambda: mistral(sliding_window=4),
    "mistral, no window": lambda: mistral(sliding_window=None),
    "mistral, both ways": lambda: mistral(sliding_window=4, is_causal=False),
    "eurobert": lambda: eurobert(rope_parameters={"rope_type": "default", "rope_theta": 2.5e5}),
    "gemma": gemma,
    "gemma3_text": lambda: gemma3(sliding_window_pattern=3),
    "gemma3_text, both ways": lambda: gemma3(
        use_bidirectional_attention=True, sliding_window=5, sliding_window_pattern=2
    ),
    "gemma3_text, scaled": lambda: gemma3(
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
}


def randomized(reference, model):
    """Gemma's norms have a scale of 1 + w: of the size that others have it."""
    reference.randomize(model)
    if "gemma" in model.config.model_type:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.sub_(0.7)
    return model


def padded(reference):
    """A batch padded on the right, and the same texts padded on the left."""
    right = reference.batch(0, lengths=(30, 5, 1, 17))
    rolls = right["ids"].shape[1] - right["mask"].sum(1)
    left = {
        name: np.stack([np.roll(row, roll) for row, roll in zip(array, rolls)])
        for name, array in right.items()
    }
    return right, left


@pytest.mark.parametrize("name", MODELS)
def test_every_real_token_equals_transformers(tmp_path, text_reference, capsys, name):
    model = randomized(text_reference, MODELS[name]())
    path = text_reference.save(model, tmp_path)
    tower = towers.load(path, kind="text", dtype="float32")
    assert "not read" not in capsys.readouterr().err
    batches = padded(text_reference)

    def every(params, batch):
        return [tower.tower.apply(params, batch, layer=layer) for layer in (-1, 0, 2)]

    run = jax.jit(every).lower(tower.params, batches[0]).compile()
    for batch in batches:
        want, mask = text_reference.run(model, batch), batch["mask"]
        outs = run(tower.params, batch)
        for out, hidden in zip(outs, (want.tokens, want.hidden[0], want.hidden[-2])):
            text_reference.assert_close(np.asarray(out.tokens)[mask], hidden[mask])


@pytest.mark.parametrize("name", MODELS)
def test_what_is_exported_is_that_model_in_transformers(tmp_path, text_reference, name):
    model = randomized(text_reference, MODELS[name]())
    tower = towers.load(text_reference.save(model, tmp_path), kind="text")
    config = tower.config
    torch_class = FAMILIES[config.family].torch
    params = unflatten_dict(flatten(jax.tree.map(np.asarray, tower.params)), sep="/")
    tensors = names.to_file(torch_class.table(config), params, heads=config.heads)
    described = json.loads(json.dumps(torch_class.describe(config, "mean")))
    _, again = towers.build(described)
    changed = {"max_length": again.max_length}
    assert dataclasses.asdict(again) == dataclasses.asdict(config) | changed
    other = t.AutoModel.from_config(t.AutoConfig.for_model(**described)).eval()
    other.load_state_dict({n: torch.tensor(a) for n, a in tensors.items()})
    for batch in padded(text_reference):
        want = text_reference.run(model, batch).tokens[batch["mask"]]
        text_reference.assert_close(text_reference.run(other, batch).tokens[batch["mask"]], want)


TASKS = {
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3ForTokenClassification, t.Qwen3ForQuestionAnswering),
    "llama": (t.LlamaForCausalLM, t.LlamaForSequenceClassification),
    "eurobert": (t.EuroBertForMaskedLM, t.EuroBertForSequenceClassification),
    "gemma3_text": (t.Gemma3ForCausalLM, t.Gemma3TextForSequenceClassification),
}


@pytest.mark.parametrize(
    ("name", "task"), [(name, task) for name, tasks in TASKS.items() for task in tasks]
)
def test_files_of_task_models_load_without_their_heads(tmp_path, text_reference, name, task):
    model = randomized(text_reference, task(MODELS[name]().config))
    tower = towers.load(text_reference.save(model, tmp_path / "task"), kind="text")
    body = getattr(model, model.base_model_prefix)
    alone = towers.load(text_reference.save(body, tmp_path / "alone"), kind="text")
    assert jax.tree.structure(tower.params) == jax.tree.structure(alone.params)
    for a, b in zip(jax.tree.leaves(tower.params), jax.tree.leaves(alone.params)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_and_sharded_files_give_the_same_tower(tmp_path, text_reference, capsys, dtype):
    model = randomized(text_reference, gemma3()).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    text_reference.write_tokenizer(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    tower = towers.load(tmp_path, kind="text", dtype="float32")
    assert "not read" not in capsys.readouterr().err
    batch = text_reference.batch(0)
    model = t.AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    want, mask = text_reference.run(model.eval(), batch).tokens, batch["mask"]
    text_reference.assert_close(np.asarray(tower(batch).tokens)[mask], want[mask])


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen2", "llama", "mistral", "eurobert", "gemma", "gemma3_text"]
)
def test_defaults_are_those_of_the_transformers_configs(name):
    """A config.json leaves out what is default."""
    full = type(MODELS[name]().config)().to_dict()
    _, ours = towers.build({"model_type": name})
    _, theirs = towers.build(full)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    described = FAMILIES[name].torch.describe(ours, "mean")
    assert dataclasses.asdict(towers.build(described)[1]) == dataclasses.asdict(ours)


def test_every_parameter_has_a_group():
    for name, make in MODELS.items():
        module, _ = towers.build(make().config.to_dict())
        leaves = flatten(abstract_params(module))
        assert not [leaf for leaf in leaves if group(leaf) == leaf], name


def read(values, **more):
    return towers.build({**SIZES, **values, **more})[1]


def test_an_embedding_gemma_of_older_keys_is_read_as_transformers_reads_it():
    values = {
        "model_type": "gemma3_text",
        "_sliding_window_pattern": 6,
        "rope_local_base_freq": 5000.0,
        "rope_theta": 2e6,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 513,
        "use_bidirectional_attention": True,
        "num_hidden_layers": 7,
    }
    old = read(values)
    new = read(t.Gemma3TextConfig(**{**SIZES, **values}).to_dict())
    assert dataclasses.asdict(old) == dataclasses.asdict(new)
    assert [rope.theta for rope in old.ropes] == [2e6, 5000]
    assert old.kinds == (1, 1, 1, 1, 1, 0, 1) and old.reach == 256


def test_the_factor_of_embeddings_is_rounded_to_the_dtype_as_in_torch(text_reference, tmp_path):
    model = randomized(text_reference, gemma3())
    path = text_reference.save(model, tmp_path)
    batch = text_reference.batch(0)
    rows = model.embed_tokens.weight.detach().numpy()[batch["ids"]]
    for dtype, factor in (("float32", 32**0.5), ("bfloat16", 5.65625)):
        tower = towers.load(path, kind="text", dtype=dtype)
        np.testing.assert_array_equal(tower(batch, layer=0).tokens, rows * np.float32(factor))


def test_the_last_token_is_pooled_where_the_directory_says_so(text_reference, tmp_path):
    model = randomized(text_reference, qwen3())
    path = text_reference.save(model, tmp_path)
    (path / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        )
    )
    (path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    tower = towers.load(path, kind="text", dtype="float32")
    assert tower.config.pooling == "last"
    for batch in padded(text_reference):
        want = text_reference.run(model, batch).tokens
        last = [row[mask][-1] for row, mask in zip(want, batch["mask"])]
        text_reference.assert_close(tower(batch).pooled, np.stack(last))


@pytest.mark.parametrize(
    ("model_type", "values", "words"),
    [
        ("qwen3", {"num_key_value_heads": 3}, "num_key_value_heads is 3"),
        ("qwen3", {"head_dim": 5}, "even head_dim"),
        ("qwen3", {"layer_types": ["full_attention"]}, "a list of 3 names"),
        ("qwen3", {"layer_types": ["chunked_attention"] * 3}, "layer_types"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "no sliding_window"),
        ("llama", {"hidden_size": 34, "num_key_value_heads": None}, "do not divide"),
        ("llama", {"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ("mistral", {"sliding_window": 0}, "sliding_window"),
        ("mistral", {"hidden_act": "mish"}, "hidden_act"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3_text", {"rope_parameters": {"full_attention": 3}}, "full_attention"),
        ("gemma3_text", {"sliding_window": None}, "no sliding_window"),
    ],
)
def test_a_config_that_is_not_supported_is_one_sentence(model_type, values, words):
    with pytest.raises(UserError, match=words) as error:
        read(values, model_type=model_type)
    assert "\n" not in str(error.value)


def test_a_length_that_fits_no_memory_is_no_default_and_that_is_said(
    text_reference, tmp_path, capsys
):
    path = text_reference.save(qwen3(max_position_embeddings=40960), tmp_path)
    assert towers.load(path, kind="text").config.max_length == 8192
    said = capsys.readouterr().err
    assert "texts are cut to 8192 tokens, of 40960 that it takes; write max_length" in said
    assert towers.load(path, kind="text", max_length=16384).config.max_length == 16384
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 32768}')
    assert towers.load(path, kind="text").config.max_length == 32768
