"""Keys that do not go together are refused by name."""

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError


def _resolve(**keys):
    flat = {"image.tower": "demo:vit_s14", "text.tower": "demo:minilm", "data.pairs": "p.jsonl"}
    flat.update({key.replace("__", "."): value for key, value in keys.items()})
    return config_lib.resolve(config_lib.unflatten(flat))


GIVEN = {"image__tower": "features:8", "text__tower": "features:4", "data__pairs": "features:x.npz"}


TORCH = {"image__tower": "torch:hf:a/b", "text__tower": "torch:st:c/d"}
TUNED = {"image__tune": "append", "image__standardize": False}


def test_what_lies_under_an_appended_block_may_be_encoded_in_the_step():
    assert not _resolve(**TUNED, text__tune="top:2", cache__text=False).cache.text


def test_sizes_go_with_the_mode_that_has_them():
    assert _resolve(text__tune="adapter+lora", peft__lora_rank=4).peft.lora_rank == 4


def test_towers_that_torch_runs_take_what_they_can():
    config = _resolve(**TORCH, text__head__name="linear", text__pooling="own")
    assert config.text.pooling == "own" and not config.image.trust_remote_code
    assert _resolve(**TORCH, method="ridge", text__pooling="own").text.pooling == "own"


def test_the_structure_term_pools_captions_whatever_the_head_is():
    keys = {"text__head__name": "token_mlp", "text__pooling": "cls", "structure__weight": 10.0}
    assert _resolve(**keys).text.pooling == "cls"


def test_given_vectors_need_no_tower():
    assert _resolve(**GIVEN).image.tower == "features:8"


def test_given_images_go_with_a_real_text_tower():
    assert _resolve(**{**GIVEN, "text__tower": "demo:minilm"}).text.tower == "demo:minilm"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"data__pairs": "features:x.npz"}, "config.data.pairs: .* image.tower='features"),
        ({"image__tower": "features:8"}, "config.data.pairs: image.tower='features:8' takes"),
        ({**GIVEN, "data__eval": {"t": "p.jsonl"}}, "config.data.eval.t"),
        ({**GIVEN, "image__tower": "demo:vit_s14"}, "image.tower='features:WIDTH'"),
        ({**GIVEN, "image__layer": 3}, "config.image.tower: .* no layers"),
        ({**GIVEN, "text__tune": "full"}, "config.text.tower: .* no layers"),
        ({**GIVEN, "cache__views": 0}, "config.cache.views: given vectors"),
        ({**GIVEN, "image__size": 224}, "config.image: given vectors"),
        ({**GIVEN, "text__prefix": "query: "}, "config.text.prefix: .* no effect"),
        ({**GIVEN, "cache__text": False}, "config.cache.text: .* no effect"),
        ({**TORCH, "image__tune": "append"}, "config.image.tune: .* run by torch"),
        ({**TORCH, "text__tune": "full"}, "config.text.tune: .* no gradients"),
        ({**TORCH, "image__size": 224}, "config.image.size: .* prepare images"),
        ({**TORCH, "cache__views": 0}, "config.cache.views: .* once before training"),
        ({**TORCH, "cache__text": False}, "config.cache.text: .* once before training"),
        ({**TORCH, "text__param_dtype": "int8"}, "config.text.param_dtype: 'int8' is for"),
        ({"image__trust_remote_code": True}, "config.image.trust_remote_code: True has no effect"),
        ({"text__torch_device": "cpu"}, "config.text.torch_device: 'cpu' has no effect"),
        ({**GIVEN, "augment__words": (4, 0.2)}, "config.augment.words: .* no words"),
        ({"text__tune": "full", "cache__text": False}, "config.cache.text: .* no effect"),
        ({"cache__place": "device", "cache__text": False}, "config.cache.place"),
        ({"cache__place": "device", "cache__views": 0}, "config.cache.place"),
        ({"cache__place": "disk", "cache__dir": "none"}, "config.cache.place: 'disk' reads"),
        ({"latent__mixup": 1.0, "text__tune": "full"}, "config.latent.mixup"),
        ({"train__micro_batch": 100}, "config.train.micro_batch: 100"),
        (
            {
                "text__head__name": "pooled_mlp",
                "text__head__norm": "batch",
                "train__micro_batch": 64,
            },
            "config.text.head.norm: 'batch' is over a whole batch",
        ),
        ({"text__head__norm": "batch"}, "config.text.head.norm: .* no effect"),
        ({"train__remat": "blocks"}, "config.train.remat: .* no effect"),
        ({"text__tune": "full", "text__param_dtype": "bfloat16"}, "config.text.param_dtype"),
        ({"text__tune": "lora", "text__param_dtype": "int8"}, "config.text.param_dtype: 'int8' is"),
        (
            {
                "latent__noise": 0.1,
                "text__tune": "full",
                "image__tune": "full",
                "image__standardize": False,
            },
            "config.latent.noise",
        ),
        ({"image__tune": "append"}, "config.image.standardize"),
        ({**TUNED, "cache__place": "device"}, "config.cache.place: with image.tune='append'"),
        ({**TUNED, "augment__flip": True}, "config.cache.views: 1 encodes"),
        ({**TUNED, "latent__mixup": 1.0}, "config.latent.mixup"),
        ({"text__tune": "layernorm", "cache__text": False}, "config.cache.text: .* no effect"),
        ({"peft__lora_rank": 4}, "config.peft.lora_rank: 4 has no effect with image.tune='frozen'"),
        ({"text__tune": "lora", "peft__adapter_reduction": 2}, "config.peft.adapter_reduction: 2"),
        ({"text__tune": "adapter+frozen"}, "config.text.tune: expected 'frozen', 'full', 'top:K'"),
        ({"text__head__name": "lookup", "text__head__depth": 2}, "text.head.depth: .* no effect"),
        ({"image__head__width": 8}, "config.image.head.width: 8 has no effect with image.head"),
        ({"text__head__name": "linear+nothing"}, "config.text.head.name: .* joined by"),
        ({"text__head__name": "linear+linear"}, "config.text.head.name"),
        ({"text__head__name": "linear+identity"}, "config.text.head.name: 'identity' cannot start"),
        ({"text__head__name": "token_mlp+lookup", "text__pooling": "cls"}, "text.pooling: .*no ef"),
        ({**GIVEN, "text__head__name": "linear+lookup"}, "config.text.head.name: 'lookup' needs"),
        ({"loss__smoothing": 0.1, "loss__name": "sigmoid"}, "config.loss.smoothing: .* no effect"),
        ({"loss__normalize": "square"}, "config.loss.normalize: .* no effect"),
        ({"loss__local_groups": 4}, "config.loss.local_groups: .* no effect"),
        ({"structure__weight": 1.0, "text__tune": "full"}, "config.structure.weight: .* text.tune"),
        ({"structure__ramp": 10}, "config.structure.ramp: 10 has no effect with structure.weight"),
        ({"structure__weight": 1.0, "method": "cca"}, "config.structure.weight: .* no effect"),
        ({"loss__negatives": "local"}, "config.loss.local_groups: .* 2 or more"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(keys, words):
    with pytest.raises(UserError, match=words):
        _resolve(**keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"method": "cca", "start__method": "cca"}, "config.start.method: with method='cca'"),
        ({"method": "ridge", "cache__text": False}, "config.method: 'ridge' is solved on encoded"),
        ({"method": "cca", "text__tune": "full"}, "config.method: 'cca' is solved on encoded"),
        ({"method": "asif", "embed": 64}, "config.embed: 'asif' has a width of its own"),
        ({"start__method": "cca"}, "config.image.head.name: a start from 'cca' needs 'linear'"),
        (
            {"start__method": "ridge", "image__head__name": "linear"},
            "config.image.head.name: a start from 'ridge' needs 'identity'",
        ),
        ({"start__method": "ridge"}, "config.text.head.name: .* a linear head"),
        ({"closed__l2": 1.0}, "config.closed.l2: 1.0 has no effect with method='train'"),
        ({"method": "ridge", "closed__power": 1.0}, "config.closed.power: 1.0 has no effect"),
    ],
)
def test_closed_forms_say_what_they_need(keys, words):
    with pytest.raises(UserError, match=words):
        _resolve(**keys)


def test_cca_makes_its_own_heads_of_any_width():
    assert _resolve(method="cca", embed=64).embed == 64
