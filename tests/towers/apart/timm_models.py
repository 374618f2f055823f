"""Small random models of timm, what they give, and their files.

Usage: python timm_models.py SPECS.json FOLDER. A spec has the keys name, architecture, args,
layers (arguments that are classes), cfg (`pretrained_cfg`), sizes and wrapped (by transformers);
FOLDER/NAME gets the model's files, FOLDER/NAME.npz what it gives.
"""

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import transformers
from common import randomize, timm
from PIL import Image

LAYERS = {"SwiGLUPacked": timm.layers.SwiGLUPacked, "SiLU": torch.nn.SiLU}


def run(model, size, seed):
    """Tokens, the stream after one block, the pooled vector and the logits, of two images."""
    image = np.random.default_rng(seed).normal(size=(2, *size, 3)).astype(np.float32)
    with torch.inference_mode():
        pixels = torch.tensor(image).permute(0, 3, 1, 2)
        tokens = model.forward_features(pixels)
        pooled = model.forward_head(tokens, pre_logits=True)
        logits = model.forward_head(tokens)
        inner = model.forward_intermediates(
            pixels,
            indices=[0],
            return_prefix_tokens=True,
            intermediates_only=True,
            output_fmt="NLC",
        )[0]
    inner = torch.cat(inner[::-1], dim=1) if isinstance(inner, tuple) else inner
    found = {"image": image, "tokens": tokens, "pooled": pooled, "inner": inner}
    return found | {"logits": logits}


def prepare(cfg):
    """Images of several shapes, and what timm makes of them."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=cfg))
    out = {}
    for n, (height, width) in enumerate(((61, 90), (90, 61), (23, 20), (64, 64), (200, 31))):
        raw = np.random.default_rng(n).integers(0, 256, (height, width, 3)).astype(np.uint8)
        out[f"raw{n}"] = raw
        out[f"pixels{n}"] = transform(Image.fromarray(raw)).permute(1, 2, 0).numpy()
    return out


def main(specs, folder):
    for spec in json.loads(Path(specs).read_text()):
        made = {key: LAYERS[name] for key, name in spec.get("layers", {}).items()}
        model = timm.create_model(spec["architecture"], **spec["args"], **made).eval()
        randomize(model)
        arrays = {}
        for n, size in enumerate(spec["sizes"]):
            arrays |= {f"{key}{n}": np.asarray(v) for key, v in run(model, size, n).items()}
        path = folder / spec["name"]
        if spec.get("wrapped"):
            config = transformers.TimmWrapperConfig(
                architecture=spec["architecture"],
                model_args=spec["args"],
                pretrained_cfg=spec["cfg"],
            )
            wrapper = transformers.TimmWrapperModel(config)
            model.reset_classifier(0)
            wrapper.timm_model.load_state_dict(model.state_dict())
            wrapper.save_pretrained(path)
        elif made:  # As published: what is no JSON is left out.
            path.mkdir(parents=True)
            keys = {"architecture": spec["architecture"], "model_args": spec["args"]}
            cfg = {**model.pretrained_cfg, **spec["cfg"]}
            config = json.dumps({**keys, "pretrained_cfg": cfg}, default=str)
            (path / "config.json").write_text(config)
            safetensors.torch.save_file(model.state_dict(), path / "model.safetensors")
        else:
            model.pretrained_cfg = {**model.pretrained_cfg, **spec.get("cfg", {})}
            timm.models.save_for_hf(
                model, str(path), model_args=spec["args"], safe_serialization=True
            )
        own = {} if spec.get("wrapped") else model.pretrained_cfg
        arrays |= prepare({**own, **spec.get("cfg", {})})
        np.savez(folder / f"{spec['name']}.npz", **arrays)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
