"""BERT, RoBERTa, XLM-R and DistilBERT towers against transformers."""

import jax
import numpy as np
import pytest
import safetensors.numpy
import transformers

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.loading import abstract_params

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
DISTIL_SIZES = {
    "vocab_size": 60,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 24,
}


def tiny(family="bert", **kwargs):
    config, model = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
        "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaModel),
        "distilbert": (transformers.DistilBertConfig, transformers.DistilBertModel),
    }[family]
    sizes = DISTIL_SIZES if family == "distilbert" else SIZES
    return model(config(**sizes, **kwargs))


@pytest.mark.parametrize(
    ("family", "kwargs", "pad_id"),
    [
        ("bert", {}, 0),
        ("bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5}, 0),
        ("roberta", {"layer_norm_eps": 1e-5, "type_vocab_size": 1}, 1),
        ("xlm-roberta", {"pad_token_id": 3}, 3),
        ("distilbert", {}, 0),
    ],
)
def test_every_real_token_equals_transformers(tmp_path, text_reference, family, kwargs, pad_id):
    model = text_reference.randomize(tiny(family, **kwargs))
    path = text_reference.save(model, tmp_path)
    text_reference.assert_parity(path, model, text_reference.batch(pad_id))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_real_positions_do_not_see_padding(tmp_path, text_reference, family):
    path = text_reference.save(text_reference.randomize(tiny(family)), tmp_path)
    tower = towers.load(str(path), kind="text", dtype="float32")
    batch = text_reference.batch(1)
    other = {**batch, "ids": np.where(batch["mask"], batch["ids"], 7).astype(np.int32)}
    got, want = tower(other), tower(batch)
    np.testing.assert_array_equal(
        np.asarray(got.tokens)[batch["mask"]], np.asarray(want.tokens)[batch["mask"]]
    )
    np.testing.assert_array_equal(got.pooled, want.pooled)


def test_pooling_is_cls_for_bert_and_mean_for_roberta(tmp_path, text_reference):
    for family, pool in (("bert", "cls"), ("roberta", "mean")):
        model = text_reference.randomize(tiny(family))
        path = text_reference.save(model, tmp_path / family)
        tower, batch = towers.load(str(path), kind="text", dtype="float32"), text_reference.batch(1)
        tokens, mask = text_reference.run(model, batch).tokens, batch["mask"][..., None]
        mean = (tokens * mask).sum(1) / mask.sum(1)
        want = {"cls": tokens[:, 0], "mean": mean}
        assert tower.config.pooling == pool
        text_reference.assert_close(tower(batch).pooled, want[pool])
        other = "mean" if pool == "cls" else "cls"
        text_reference.assert_close(tower(batch, pooling=other).pooled, want[other])


def test_sentence_transformers_files_set_pooling_and_length(tmp_path, text_reference):
    path = text_reference.save(text_reference.randomize(tiny()), tmp_path)
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 11}')
    tower = towers.load(str(path), kind="text")
    assert (tower.config.pooling, tower.config.max_length) == ("mean", 11)
    assert tower.prepare(["w1 " * 30])["ids"].shape == (1, 11)
    assert towers.load(str(path), kind="text", max_length=7).prepare.max_length == 7


@pytest.mark.parametrize(
    ("auto", "family"),
    [
        (transformers.AutoModelForMaskedLM, "bert"),
        (transformers.AutoModelForPreTraining, "bert"),
        (transformers.AutoModelForMaskedLM, "roberta"),
        (transformers.AutoModelForMaskedLM, "distilbert"),
        (transformers.AutoModelForSequenceClassification, "bert"),
        (transformers.AutoModelForSequenceClassification, "roberta"),
        (transformers.AutoModelForSequenceClassification, "distilbert"),
    ],
)
def test_files_of_task_models_load_without_their_heads(tmp_path, text_reference, auto, family):
    model = text_reference.randomize(auto.from_config(tiny(family).config))
    path = text_reference.save(model, tmp_path)
    tower = towers.load(str(path), kind="text", dtype="float32")
    tokens = text_reference.run(getattr(model, family), text_reference.batch()).tokens
    got = tower(text_reference.batch())
    mask = text_reference.batch()["mask"]
    text_reference.assert_close(np.asarray(got.tokens)[mask], tokens[mask])


def rename(path, change):
    """Rewrite the weights' file through `change(tensors) -> tensors`."""
    file = path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(change(tensors), file)


def test_old_spellings_and_buffers_load(tmp_path, text_reference):
    path = text_reference.save(text_reference.randomize(tiny()), tmp_path)
    new = towers.load(str(path), kind="text")

    def old(tensors):
        tensors = {
            "bert."
            + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in tensors.items()
        }
        return {**tensors, "bert.embeddings.position_ids": np.arange(24)[None]}

    rename(path, old)
    for a, b in zip(
        jax.tree.leaves(new.params), jax.tree.leaves(towers.load(str(path), kind="text").params)
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_names_lead_back_to_the_file(tmp_path, text_reference, family):
    path = text_reference.save(text_reference.randomize(tiny(family)), tmp_path)
    text_reference.assert_names_lead_back(path, {"pooler.dense.weight", "pooler.dense.bias"})


NAME = "encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {k: v for k, v in t.items() if k != NAME},
        lambda t: {**t, NAME: np.ascontiguousarray(t[NAME].T)},
        lambda t: {**t, NAME.replace("1", "7"): t[NAME]},
    ],
    ids=["missing", "misshapen", "unexpected"],
)
def test_weights_that_do_not_fit_the_config_are_a_user_error(tmp_path, text_reference, change):
    path = text_reference.save(tiny(), tmp_path)
    rename(path, change)
    with pytest.raises(UserError, match=r"encoder\.layer\.[17]\.output\.dense\.weight"):
        towers.load(str(path), kind="text")


@pytest.mark.parametrize(
    ("key", "value"),
    [("position_embedding_type", "relative_key"), ("is_decoder", True), ("hidden_act", "mish")],
)
def test_a_config_that_is_not_supported_is_a_user_error(key, value):
    with pytest.raises(UserError, match=f"{key}.*write torch:hf:NAME_OR_DIR"):
        towers.build({"model_type": "bert", **SIZES, key: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "options", [{"max_length": 25}, {"max_length": 0}, {"image_size": 64}, {"prefix": 3}], ids=str
)
def test_options_that_do_not_fit_are_a_user_error(tmp_path, text_reference, options):
    path = text_reference.save(tiny(), tmp_path)
    with pytest.raises(UserError, match=next(iter(options))):
        towers.load(str(path), kind="text", **options)


def test_a_tokenizer_of_another_model_is_a_user_error(tmp_path, text_reference):
    path = text_reference.save(tiny(), tmp_path)
    other = transformers.BertModel(transformers.BertConfig(**{**SIZES, "vocab_size": 50}))
    other.save_pretrained(path)
    with pytest.raises(UserError, match="table of 50 tokens"):
        towers.load(str(path), kind="text")


def test_bert_base_has_the_parameters_lilt_counts():
    """LilT (arXiv 2303.11866) trains 109,285,377 for LiT: text tower, projections, temperature."""
    module, _ = towers.build({"model_type": "bert"})
    shapes = jax.tree.leaves(abstract_params(module))
    heads_and_temperature = 393_729
    assert sum(leaf.size for leaf in shapes) + heads_and_temperature == 109_285_377


def test_bfloat16_keeps_the_direction_of_pooled_vectors(tmp_path, text_reference):
    path = text_reference.save(text_reference.randomize(tiny()), tmp_path)
    batch = text_reference.batch()
    exact, rounded = (
        np.asarray(towers.load(str(path), kind="text", **options)(batch, pooling="mean").pooled)
        for options in ({"dtype": "float32"}, {})
    )
    cosine = (exact * rounded).sum(-1) / np.linalg.norm(exact, axis=-1)
    assert (cosine / np.linalg.norm(rounded, axis=-1)).min() > 0.999
