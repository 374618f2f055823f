"""Small random models of open_clip, their embeddings, and their files.

Usage: python open_clip_models.py SPECS.json FOLDER. A spec has the keys name, model (`model_cfg`),
preprocess (`preprocess_cfg`), hf (a config of transformers), trunk (arguments of timm's model) and
tokenizer (a folder to copy, or CLIP's own);
FOLDER/NAME gets the model's files, FOLDER/NAME.npz what it gives.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import transformers
from common import open_clip, randomize, timm
from PIL import Image

TEXTS = ("a photo of a cat", "Zwei   Hunde, am See!", "snake_case & <b>", "x " * 90)


def write(spec, path):
    """Writes the config and, where there is one, the tokenizer and transformers' config."""
    if Path(spec["tokenizer"]).is_dir():
        shutil.copytree(spec["tokenizer"], path)
    else:
        own = open_clip.SimpleTokenizer()
        theirs = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
        vocabulary = {theirs.get(word, word): index for word, index in own.encoder.items()}
        clip = transformers.CLIPTokenizer(vocab=vocabulary, merges=list(own.bpe_ranks))
        clip.save_pretrained(path)
    config = {"model_cfg": spec["model"], "preprocess_cfg": spec["preprocess"]}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    if "hf" in spec:
        (path / "config.json").write_text(json.dumps(spec["hf"]))


def build(spec, path):
    """The model with random parameters."""
    config = json.loads(json.dumps(spec["model"]))
    create = timm.create_model
    # open_clip hands over no further arguments: a tiny trunk is made here.
    timm.create_model = lambda name, **options: create(name, **options, **spec["trunk"])
    if "hf" in spec:
        config["text_cfg"] |= {"hf_model_name": str(path), "hf_model_pretrained": False}
    custom = config.pop("custom_text", False) or "hf" in spec
    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    model = kind(**config).eval()
    timm.create_model = create
    randomize(model)
    with torch.no_grad():
        model.logit_scale.fill_(1.3)
    return model


def main(specs, folder):
    for spec in json.loads(Path(specs).read_text()):
        path = folder / spec["name"]
        write(spec, path)
        model = build(spec, path)
        safetensors.torch.save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()},
            path / "open_clip_model.safetensors",
        )
        size = spec["model"]["vision_cfg"]["image_size"]
        transform = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(**{**spec["preprocess"], "size": size}), False
        )
        tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
        arrays = {"ids": tokenizer(list(TEXTS)).numpy()}
        raws = [
            np.random.default_rng(n).integers(0, 256, (h, w, 3)).astype(np.uint8)
            for n, (h, w) in enumerate(((61, 90), (90, 61), (23, 20)))
        ]
        pixels = torch.stack([transform(Image.fromarray(raw)) for raw in raws])
        with torch.inference_mode():
            arrays["images"] = model.encode_image(pixels, normalize=True).numpy()
            arrays["texts"] = model.encode_text(tokenizer(list(TEXTS)), normalize=True).numpy()
            arrays["scale"] = model.logit_scale.exp().numpy()
        arrays |= {f"raw{n}": raw for n, raw in enumerate(raws)}
        arrays |= {f"pixels{n}": p.permute(1, 2, 0).numpy() for n, p in enumerate(pixels)}
        np.savez(folder / f"{spec['name']}.npz", **arrays)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
