"""Model types of transformers that can be frozen towers, by `torch:hf:` and without its code."""

import jax
import numpy as np
import pytest
import torch
import transformers
from transformers.models.auto import modeling_auto

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.family import model_types
from tests.benchmarks import parity
from tests.towers import test_stored_types
from tests.towers.torch.saving import PLAIN, TEXTS, save_images, save_tokenizer


def _table(**rows):
    return {name: how for how, names in rows.items() for name in names.split()}


# Types of towers that people bring, and how each is read: here, here as one of two towers, or by
# the torch route. Folders of timm and open_clip, which run apart, are read in vision/test_timm.py
# and test_open_clip.py.
VISION = _table(
    here="aimv2_vision_model beit clip_vision_model convnext convnextv2 data2vec-vision "
    "deit dinov2 dinov2_with_registers dinov3_convnext dinov3_vit ijepa mlcd_vision_model pixio "
    "radio siglip2_vision_model siglip_vision_model tipsv2_vision_model vit vit_mae vit_msn",
    two="altclip blip chinese_clip clip metaclip_2 siglip",
    torch="hiera levit pvt_v2 resnet swin swinv2",
    timm="timm_wrapper timm/vit timm/eva02 timm/pe",
    open_clip="open_clip/vit open_clip/timm",
)
TEXT = _table(
    here="albert bert camembert clip_text_model data2vec-text deberta-v2 distilbert electra "
    "ernie eurobert gemma gemma3_text gte jina_embeddings_v3 llama megatron-bert mistral "
    "modernbert mpnet mt5 nomic_bert qwen2 qwen3 rembert roberta roberta-prelayernorm roformer "
    "t5 umt5 xlm-roberta xlm-roberta-xl",
    two="clip siglip",
    torch="big_bird canine deberta esm flaubert fnet funnel gpt2 ibert longformer mobilebert "
    "nystromformer squeezebert t5gemma xlm",
)
TYPES = {"image": VISION, "text": TEXT}
SMALL = {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 48, "hidden_act": "gelu"}
SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2, "patch_size": 4}
HEADED = {"num_key_value_heads": 2, "head_dim": 16}
# Sizes beside the plain ones, of types that only the torch route reads.
SIZES = {
    "hiera": {
        "embed_dim": 16,
        "image_size": [32, 32],
        "depths": [1, 1],
        "num_heads": [1, 2],
        "num_query_pool": 1,
        "masked_unit_size": [4, 4],
        "masked_unit_attention": [True, False],
    },
    "pvt_v2": {
        "image_size": 32,
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1] * 4,
    },
    "levit": {
        "image_size": 64,
        "hidden_sizes": [16, 16, 16],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "big_bird": {},
    "deberta": {},
    "fnet": {},
    "mobilebert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "nystromformer": {},
    "squeezebert": {"embedding_size": 32},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 8, "num_hash_functions": 4},
    "esm": {"mask_token_id": 3, "pad_token_id": 0, "max_position_embeddings": 40},
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 2},
    "funnel": {**SMALL, "block_sizes": [1, 1]},
    "ibert": {"max_position_embeddings": 40},
    "longformer": {"attention_window": [4, 4], "max_position_embeddings": 40, "pad_token_id": 0},
    "t5gemma": {
        "encoder": {**PLAIN, **HEADED},
        "decoder": {**PLAIN, **HEADED},
        "is_encoder_decoder": False,
    },
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "swin": {**SWIN, "image_size": 32},
    "swinv2": {**SWIN, "image_size": 32},
}
ALONE = ("hiera", "pvt_v2", "levit", "resnet", "swin", "swinv2", "funnel", "t5gemma")


def of(how):
    return [(kind, name) for kind, table in TYPES.items() for name, x in table.items() if x == how]


def test_the_lists_are_of_39_image_types_and_48_text_types_and_each_is_read_as_it_says():
    assert {kind: len(table) for kind, table in TYPES.items()} == {"image": 39, "text": 48}
    of_transformers = {
        *modeling_auto.MODEL_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    }
    for kind, table in TYPES.items():
        for name, how in table.items():
            native = name in model_types(kind)
            assert native == (how in ("here", "two")), name
            assert how != "torch" or (name in of_transformers and name in SIZES), name
    # What is here in one piece is saved by transformers and read by test_stored_types.py.
    assert {name for _, name in of("here")} <= set(test_stored_types.TYPES)


@pytest.mark.parametrize(("kind", "name"), of("two"))
def test_a_tower_of_two_is_read(kind, name, tmp_path):
    config = transformers.CONFIG_MAPPING[name](
        vision_config={**parity.IMAGE, "projection_dim": 16},
        text_config={**parity.TEXT, "projection_dim": 16, "project_dim": 32},
    )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    parity.write_tokenizer(tmp_path)
    _, params = towers.read(tmp_path, kind=kind)
    assert {x.shape[0] for x in jax.tree.leaves(params["blocks"])} == {3}


@pytest.mark.parametrize(("kind", "name"), of("torch"))
def test_a_type_without_a_family_is_encoded_with(kind, name, tmp_path, pictures):
    plain = {k: v for k, v in PLAIN.items() if kind == "text" or k != "vocab_size"}
    if name in ALONE:
        plain = {"vocab_size": PLAIN["vocab_size"]} if name == "funnel" else {}
    config = transformers.CONFIG_MAPPING[name](**{**plain, **SIZES[name]})
    torch.manual_seed(0)
    end = "EncoderModel" if name == "t5gemma" else "Model"
    model = getattr(transformers, type(config).__name__.replace("Config", end))(config)
    model.save_pretrained(tmp_path)
    side = getattr(config, "image_size", 32)
    side = side if isinstance(side, int) else 32
    save_images(tmp_path, size={"height": side, "width": side})
    save_tokenizer(tmp_path)
    tower = towers.load(f"torch:hf:{tmp_path}", kind=kind, dtype="float32")
    vectors = tower.encode(pictures if kind == "image" else TEXTS)
    assert np.isfinite(vectors).all() and vectors.shape[1] == tower.config.pooled_width()


def test_a_model_that_is_random_is_refused(swin, monkeypatch):
    forward = transformers.SwinModel.forward

    def noisy(self, pixel_values, **options):
        out = forward(self, pixel_values, **options)
        out.pooler_output = out.pooler_output + torch.randn_like(out.pooler_output)
        return out

    monkeypatch.setattr(transformers.SwinModel, "forward", noisy)
    with pytest.raises(UserError, match="another output for the same input each time"):
        towers.load(f"torch:hf:{swin}", kind="image", dtype="float32")
