"""Families that are BERT but for a table, a width or a norm's place, against transformers."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers as t
from flax.traverse_util import unflatten_dict

from ape_jax import towers
from ape_jax.align.tuning.selection import flatten, group
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import names
from ape_jax.towers.loading import abstract_params

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 28,
    "patch_size": 14,
}


def two(config, **text):
    return config(text_config={**SIZES, **text}, vision_config=VISION, projection_dim=16)


# The model, where its text tower is, and the id that it pads with.
MODELS = {
    "ernie": (lambda: t.ErnieModel(t.ErnieConfig(**SIZES)), "", 0),
    "ernie, tasks": (
        lambda: t.ErnieModel(t.ErnieConfig(**SIZES, use_task_id=True, hidden_act="relu")),
        "",
        0,
    ),
    "chinese_clip": (lambda: t.ChineseCLIPModel(two(t.ChineseCLIPConfig)), "text_model", 0),
    "chinese_clip_text_model": (
        lambda: t.ChineseCLIPTextModel(t.ChineseCLIPTextConfig(**SIZES)),
        "",
        0,
    ),
    "camembert": (lambda: t.CamembertModel(t.CamembertConfig(**SIZES)), "", 1),
    "data2vec-text": (lambda: t.Data2VecTextModel(t.Data2VecTextConfig(**SIZES)), "", 1),
    "electra": (lambda: t.ElectraModel(t.ElectraConfig(**SIZES, embedding_size=24)), "", 0),
    "electra, one width": (
        lambda: t.ElectraModel(t.ElectraConfig(**SIZES, embedding_size=32)),
        "",
        0,
    ),
    "rembert": (lambda: t.RemBertModel(t.RemBertConfig(**SIZES, input_embedding_size=24)), "", 0),
    "rembert, one width": (
        lambda: t.RemBertModel(t.RemBertConfig(**SIZES, input_embedding_size=32)),
        "",
        0,
    ),
    "albert": (lambda: t.AlbertModel(t.AlbertConfig(**SIZES, embedding_size=24)), "", 0),
    "albert, one width": (
        lambda: t.AlbertModel(t.AlbertConfig(**SIZES, embedding_size=32)),
        "",
        0,
    ),
    "roformer": (lambda: t.RoFormerModel(t.RoFormerConfig(**SIZES)), "", 0),
    "roformer, narrower embeddings": (
        lambda: t.RoFormerModel(t.RoFormerConfig(**SIZES, embedding_size=24)),
        "",
        0,
    ),
    "roberta-prelayernorm": (
        lambda: t.RobertaPreLayerNormModel(t.RobertaPreLayerNormConfig(**SIZES)),
        "",
        1,
    ),
    "xlm-roberta-xl": (lambda: t.XLMRobertaXLModel(t.XLMRobertaXLConfig(**SIZES)), "", 1),
    "megatron-bert": (lambda: t.MegatronBertModel(t.MegatronBertConfig(**SIZES)), "", 0),
}
BLIP = SIZES | {"pad_token_id": 0}
MODELS |= {
    "blip": (lambda: t.BlipModel(two(t.BlipConfig, **BLIP)), "text_model", 0),
    "blip, image-text matching": (
        lambda: t.BlipForImageTextRetrieval(two(t.BlipConfig, **BLIP)),
        "text_encoder",
        0,
    ),
    "blip_text_model": (lambda: t.BlipTextModel(t.BlipTextConfig(**BLIP)), "", 0),
    "altclip": (lambda: t.AltCLIPModel(two(t.AltCLIPConfig, project_dim=24)), "text_model", 1),
    "altclip_text_model": (
        lambda: t.AltCLIPTextModel(t.AltCLIPTextConfig(**SIZES, project_dim=24)),
        "",
        1,
    ),
}
EXPORTED = [name for name in MODELS if "altclip" not in name]


def random_model(reference, name):
    return reference.randomize(MODELS[name][0]())


# What differs from another case by names alone.
ALIKE = [name for name in MODELS if "text_model" in name or "one width" in name]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ALIKE)) for n in MODELS]
)
def test_every_real_token_equals_transformers(tmp_path, text_reference, capsys, name):
    _, where, pad_id = MODELS[name]
    model = random_model(text_reference, name)
    path = text_reference.save(model, tmp_path)
    tower = towers.load(path, kind="text", dtype="float32")
    assert "not read" not in capsys.readouterr().err
    reference = model.get_submodule(where)
    change = reference.transformation if "altclip" in name else torch.nn.Identity()

    def as_its_class(tokens):  # AltCLIP's returns what has passed a linear layer, a head here.
        with torch.inference_mode():
            return change(torch.tensor(tokens)).numpy()

    batches = text_reference.both_sides(pad_id)
    text_reference.assert_every_token(tower, reference, batches, change=as_its_class)


TASKS = {
    "ernie": (t.ErnieForMaskedLM, t.ErnieForSequenceClassification, t.ErnieForPreTraining),
    "camembert": (t.CamembertForMaskedLM,),
    "data2vec-text": (t.Data2VecTextForMaskedLM, t.Data2VecTextForSequenceClassification),
    "electra": (
        t.ElectraForPreTraining,
        t.ElectraForMaskedLM,
        t.ElectraForSequenceClassification,
        t.ElectraForMultipleChoice,
    ),
    "rembert": (t.RemBertForMaskedLM, t.RemBertForQuestionAnswering),
    "albert": (t.AlbertForPreTraining, t.AlbertForMaskedLM, t.AlbertForTokenClassification),
    "roformer": (t.RoFormerForMaskedLM, t.RoFormerForMultipleChoice),
    "roberta-prelayernorm": (t.RobertaPreLayerNormForMaskedLM,),
    "xlm-roberta-xl": (t.XLMRobertaXLForMaskedLM, t.XLMRobertaXLForSequenceClassification),
    "megatron-bert": (t.MegatronBertForPreTraining, t.MegatronBertForMaskedLM),
}


@pytest.mark.parametrize(
    ("name", "task"), [(name, task) for name, tasks in TASKS.items() for task in tasks]
)
def test_files_of_task_models_load_without_their_heads(tmp_path, text_reference, name, task):
    base = MODELS[name][0]()
    model = text_reference.randomize(task(base.config))
    tower = towers.load(text_reference.save(model, tmp_path / "task"), kind="text")
    body = getattr(model, model.base_model_prefix)
    alone = towers.load(text_reference.save(body, tmp_path / "alone"), kind="text")
    assert jax.tree.structure(tower.params) == jax.tree.structure(alone.params)
    for a, b in zip(jax.tree.leaves(tower.params), jax.tree.leaves(alone.params)):
        np.testing.assert_array_equal(a, b)


WHOLE = [n for n, (_, where, _) in MODELS.items() if not where and "text_model" not in n]


@pytest.mark.parametrize("name", WHOLE)
def test_names_lead_back_to_the_file(tmp_path, text_reference, name):
    path = text_reference.save(random_model(text_reference, name), tmp_path)
    text_reference.assert_names_lead_back(path, UNUSED)


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_exported_is_that_model_in_transformers(tmp_path, text_reference, name):
    _, where, pad_id = MODELS[name]
    model = random_model(text_reference, name)
    tower = towers.load(text_reference.save(model, tmp_path), kind="text")
    torch_class = FAMILIES[tower.config.family].torch
    params = jax.tree.map(np.asarray, tower.params)
    family = FAMILIES[tower.config.family]
    arrays = torch_class.complete(tower.config, flatten(params)) | family.computed(tower.config)
    tensors = names.to_file(
        torch_class.table(tower.config), unflatten_dict(arrays, sep="/"), heads=tower.config.heads
    )
    described = torch_class.describe(tower.config, tower.config.pooling)
    again = t.AutoModel.from_config(t.AutoConfig.for_model(**described)).eval()
    loaded = again.load_state_dict({n: torch.tensor(a) for n, a in tensors.items()}, strict=False)
    assert not loaded.unexpected_keys and set(loaded.missing_keys) <= POOLER
    for batch in text_reference.both_sides(pad_id):
        want = text_reference.run(model.get_submodule(where), batch).tokens
        # BLIP's class has an attention of its own, so that the last bits are others.
        text_reference.assert_close(text_reference.run(again, batch).tokens, want, 1e-6)


POOLER = {"pooler.dense.weight", "pooler.dense.bias"}
POOLER |= {"pooler.weight", "pooler.bias"}  # ALBERT's.
UNUSED = POOLER | {"encoder.embed_positions.weight"}


@pytest.mark.parametrize("name", MODELS)
def test_defaults_and_descriptions_are_those_of_the_transformers_configs(name):
    """A config.json leaves out what is default, and an export writes one that its class reads."""
    model_type = name.partition(",")[0]
    full = {**type(MODELS[name][0]().config)().to_dict(), "model_type": model_type}
    _, ours = towers.build({"model_type": model_type}, kind="text")
    _, theirs = towers.build(full, kind="text")
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    if model_type in MODELS and model_type in EXPORTED:
        described = FAMILIES[ours.family].torch.describe(ours, ours.pooling)
        _, again = towers.build(described)
        # BLIP's becomes a BERT.
        same = {key: getattr(again, key) for key in ("family", "types", "pooling_known")}
        assert dataclasses.asdict(again) == dataclasses.asdict(ours) | same


def test_every_parameter_has_a_group():
    for name, (make, _, _) in MODELS.items():
        module, _ = towers.build(make().config.to_dict(), kind="text")
        leaves = flatten(abstract_params(module))
        assert not [leaf for leaf in leaves if group(leaf) == leaf], name
