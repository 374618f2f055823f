"""Model types of transformers that can be frozen towers, by `torch:hf:` and without its code."""

import numpy as np
import pytest
import torch
import transformers
from transformers.models.auto import modeling_auto

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.family import model_types
from tests.towers.torch.saving import PLAIN, TEXTS, save_images, save_tokenizer

VISION = (
    "aimv2_vision_model altclip beit blip chinese_clip clip clip_vision_model convnext convnextv2 "
    "data2vec-vision deit dinov2 dinov2_with_registers dinov3_convnext dinov3_vit hiera ijepa "
    "levit metaclip_2 mlcd_vision_model pixio pvt_v2 radio resnet siglip siglip2_vision_model "
    "siglip_vision_model swin swinv2 timm_wrapper tipsv2_vision_model vit vit_mae vit_msn"
).split()
TEXT = (
    "albert bert big_bird camembert canine clip clip_text_model data2vec-text deberta deberta-v2 "
    "distilbert electra ernie esm eurobert flaubert fnet funnel gemma3_text gpt2 ibert "
    "jina_embeddings_v3 llama longformer megatron-bert mistral mobilebert modernbert mpnet mt5 "
    "nomic_bert nystromformer qwen2 qwen3 rembert roberta roberta-prelayernorm roformer siglip "
    "squeezebert t5 t5gemma umt5 xlm xlm-roberta xlm-roberta-xl"
).split()
# Without a family here: only this route reads them.
ONLY_HERE = {
    "beit": {"image_size": 32, "patch_size": 8},
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
}


@pytest.mark.parametrize("kind", ["image", "text"])
def test_every_type_is_read_here_or_by_transformers(kind):
    own = {
        *modeling_auto.MODEL_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
        *model_types(kind),
    }
    assert [name for name in (VISION if kind == "image" else TEXT) if name not in own] == []


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ONLY_HERE)
def test_a_type_without_a_family_is_encoded_with(model_type, tmp_path, pictures):
    kind = "image" if model_type in VISION else "text"
    settings = {k: v for k, v in PLAIN.items() if kind == "text" or k != "vocab_size"}
    if model_type in ("hiera", "pvt_v2", "levit"):
        settings = {}
    config = transformers.CONFIG_MAPPING[model_type](**{**settings, **ONLY_HERE[model_type]})
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
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
