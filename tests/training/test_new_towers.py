"""APE on towers of 2025: DINOv3's images and Qwen 3's texts, trained, resumed and exported."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
import transformers

from ape_jax import config as config_lib
from ape_jax.exporters import verified, verify
from ape_jax.training import loop

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


class Killed(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


def final_parameters(workdir):
    step = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    path = (workdir / "checkpoints" / str(step) / "trainable").absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.tree.map(np.asarray, checkpointer.restore(path))


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory):
    """Directories of a DINOv3 and of a Qwen 3 whose upper block is sliding, all random."""
    root = tmp_path_factory.mktemp("towers")
    image = transformers.DINOv3ViTConfig(
        **SIZES, intermediate_size=64, image_size=32, patch_size=8, num_register_tokens=2
    )
    text = transformers.Qwen3Config(
        **SIZES,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        vocab_size=18,
        max_position_embeddings=32,
        use_sliding_window=True,
        sliding_window=3,
        max_window_layers=1,
    )
    files = {
        "image": ["preprocessor_config.json"],
        "text": ["tokenizer.json", "tokenizer_config.json"],
    }
    models = transformers.DINOv3ViTModel(image), transformers.Qwen3Model(text)
    generator = torch.Generator().manual_seed(0)
    for model, (side, names) in zip(models, files.items()):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(root / side)
        for name in names:
            shutil.copy(tiny / side / name, root / side)
    return root


def test_ape_trains_resumes_with_the_same_bits_and_is_exported(
    pair, tiny_config, tiny, tmp_path, blocks_through, monkeypatch
):
    tiny_config.image.tower, tiny_config.text.tower = str(pair / "image"), str(pair / "text")
    tiny_config.train.steps, tiny_config.train.checkpoint_every = 20, 10
    tiny_config.optim.lr = 3e-3
    config = config_lib.resolve(tiny_config)
    whole = loop.train_and_evaluate(config, tmp_path / "whole")

    def until(blocks):
        for span, block in blocks:
            if span.first + span.stop >= 14:
                raise Killed
            yield span, block

    heal = blocks_through(until)
    with pytest.raises(Killed):
        loop.train_and_evaluate(config, tmp_path / "cut")
    heal()
    assert loop.train_and_evaluate(config, tmp_path / "cut").keys() == whole.keys()
    jax.tree.map(
        np.testing.assert_array_equal,
        *(final_parameters(tmp_path / name) for name in ("whole", "cut")),
    )
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text()
    assert (tmp_path / "cut" / "metrics.jsonl").read_text() == lines
    losses = [json.loads(line).get("train/loss") for line in lines.splitlines()]
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < 0.8 * losses[0]
    # The export is compared with the run by transformers in a process of its own.
    assert verify.LEAST_COSINE >= 0.99999
    out = verified.export(tmp_path / "whole", tmp_path / "out", "torch", str(tiny / "pairs.jsonl"))
    described = json.loads((out / "config.json").read_text())
    assert described["vision_config"]["model_type"] == "dinov3_vit"
    assert described["text_config"]["model_type"] == "qwen3"
