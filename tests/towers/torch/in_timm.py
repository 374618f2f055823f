"""Run by test_timm_images.py where timm is importable: saves a small model of timm and compares.

Prints one line of JSON: the largest differences of what `torch:timm:` gives from timm's own.
"""

import json
import sys
from pathlib import Path

import numpy as np


def without_operators():
    """Lets a torchvision be imported whose compiled operators are of another torch."""
    import torch

    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for part in [part for part in sys.modules if part.split(".")[0] == "torchvision"]:
            del sys.modules[part]
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", schema)


def main(directory):
    """Saves and compares each of a few architectures."""
    import timm
    import torch
    from PIL import Image

    from ape_jax import towers
    from tests.towers.torch.saving import randomised

    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)) for _ in range(2)]
    found = {}
    models = {
        "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
        "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2)},
        "vit_tiny_patch16_224": {"embed_dim": 16, "depth": 1, "num_heads": 2},
    }
    for name, sizes in models.items():
        model = randomised(timm.create_model(name, num_classes=3, **sizes))
        path = Path(directory) / name
        timm.models.save_for_hf(model, path, model_args=sizes, safe_serialization=True)
        tower = towers.load(f"torch:timm:{path}", dtype="float32")
        out = tower(tower.prepare(pictures))
        settings = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**settings, is_training=False)
        with torch.inference_mode():
            features = model.forward_features(torch.stack([transform(x) for x in pictures]))
            want = model.forward_head(features, pre_logits=True).numpy()
        mean = tower(tower.prepare(pictures), pooling="mean").pooled
        found[name] = {
            "own": float(np.abs(np.asarray(out.pooled) - want).max()),
            "width": tower.config.pooled_width(),
            "tokens": list(out.tokens.shape),
            "prefix": tower.config.prefix_tokens,
            "mean": list(mean.shape),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    without_operators()
    main(sys.argv[1])
