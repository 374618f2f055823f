"""DeBERTa-v2 and v3 against transformers."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers as t
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from ape_jax import towers
from ape_jax.align.tuning.selection import flatten, group
from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names
from ape_jax.towers.loading import abstract_params
from ape_jax.towers.text.deberta.attention import log_buckets

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "relative_attention": True,
}
V3 = SIZES | {
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
OWN = V3 | {"share_att_key": False, "norm_rel_ebd": "none", "type_vocab_size": 2}
CONFIGS = {
    "v3": V3,
    "own keys and queries of positions": OWN,
    "from content to position": OWN | {"pos_att_type": ["c2p"], "position_biased_input": True},
    "from position to content": V3 | {"pos_att_type": ["p2c"]},
    "no buckets": V3 | {"position_buckets": -1, "max_relative_positions": 6},
}
LENGTHS = (40, 5, 1, 17)


def model_of(reference, name):
    return reference.randomize(t.DebertaV2Model(t.DebertaV2Config(**CONFIGS[name])))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_real_token_equals_transformers(tmp_path, text_reference, capsys, name):
    model = model_of(text_reference, name)
    path = text_reference.save(model, tmp_path)
    tower = towers.load(path, kind="text", dtype="float32")
    assert "not read" not in capsys.readouterr().err
    batches = text_reference.both_sides(lengths=LENGTHS)
    text_reference.assert_every_token(tower, model, batches)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_exported_is_that_model_in_transformers(tmp_path, text_reference, name):
    model = model_of(text_reference, name)
    tower = towers.load(text_reference.save(model, tmp_path), kind="text")
    torch_class, config = FAMILIES["deberta_v2"].torch, tower.config
    params = jax.tree.map(np.asarray, tower.params)
    tensors = names.to_file(torch_class.table(config), params, heads=config.heads)
    described = torch_class.describe(config, "cls")
    _, again = towers.build(described)
    assert dataclasses.asdict(again) == dataclasses.asdict(config)
    exported = t.AutoModel.from_config(t.AutoConfig.for_model(**described)).eval()
    exported.load_state_dict({n: torch.tensor(a) for n, a in tensors.items()})
    for batch in text_reference.both_sides(lengths=LENGTHS):
        want = text_reference.run(model, batch).tokens
        np.testing.assert_array_equal(text_reference.run(exported, batch).tokens, want)


@pytest.mark.parametrize("task", [t.DebertaV2ForMaskedLM, t.DebertaV2ForSequenceClassification])
@pytest.mark.parametrize("legacy", [True, False])
def test_files_of_task_models_load_without_their_heads(tmp_path, text_reference, task, legacy):
    model = text_reference.randomize(task(t.DebertaV2Config(**V3, legacy=legacy)))
    tower = towers.load(text_reference.save(model, tmp_path), kind="text")
    want = model.deberta.encoder.rel_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(tower.params["relative"]["table"], want)


def test_every_parameter_has_a_group():
    for config in CONFIGS.values():
        module, _ = towers.build({**config, "model_type": "deberta-v2"})
        assert not [leaf for leaf in flatten(abstract_params(module)) if group(leaf) == leaf]


@pytest.mark.parametrize(("buckets", "furthest"), [(256, 512), (16, 40), (32, 512)])
def test_buckets_equal_transformers(buckets, furthest):
    offset = np.arange(-furthest + 1, furthest)
    want = make_log_bucket_position(torch.tensor(offset), buckets, furthest).long().numpy()
    np.testing.assert_array_equal(log_buckets(offset, buckets, furthest), want)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conv_kernel_size", 3),
        ("relative_attention", False),
        ("embedding_size", 16),
        ("pos_att_type", "p2p"),
        ("position_buckets", 200),
    ],
)
def test_a_config_that_is_not_supported_is_a_user_error(key, value):
    with pytest.raises(UserError, match=key):
        towers.build({"model_type": "deberta-v2", **V3, key: value})
