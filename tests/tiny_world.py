"""A tiny world: two towers with random weights, coloured shapes, and a config that trains on them.

Tests have it as the fixture `tiny`; the checks on accelerators make it on the spot.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow", "black", "purple")
SHAPES = ("square", "circle", "triangle", "bar")


def write(root: pathlib.Path) -> None:
    """Writes `image` and `text` (tower directories) and `pairs.jsonl` with 24 records.

    The towers are transformers' own with random weights: they prove the machinery, not the result.
    """
    _write_towers(root)
    _write_pairs(root)


def config(root: pathlib.Path, features: str | os.PathLike[str]) -> Any:
    """A config that trains on the world at `root` in seconds, in f32.

    Args:
      root: what `write` filled.
      features: directory of the cached features.
    """
    from ape_jax import config as config_lib

    made = config_lib.default()
    made.image.tower, made.text.tower = str(root / "image"), str(root / "text")
    made.image.dtype = made.text.dtype = "float32"
    made.data.pairs = str(root / "pairs.jsonl")
    made.data.eval = {"train": str(root / "pairs.jsonl")}
    made.text.head.depth, made.text.head.width = 3, 64
    made.train.batch, made.train.steps, made.train.log_every = 16, 8, 2
    made.train.checkpoint_every = 4
    made.eval.batch = 8
    made.cache.dir = str(features)
    return made


def write_config(made: Any, folder: pathlib.Path) -> pathlib.Path:
    """Writes a config as a file that `--config` takes; returns its path."""
    from ape_jax import config as config_lib

    flat = json.dumps(config_lib.flatten(config_lib.resolve(made)))
    (folder / "flat.json").write_text(flat)
    path = folder / "config.py"
    path.write_text(
        "import json, ml_collections\n"
        "from ape_jax import config\n"
        "def get_config(arg=''):\n"
        f"    flat = json.load(open({str(folder / 'flat.json')!r}))\n"
        "    return ml_collections.ConfigDict(config.unflatten(flat))\n"
    )
    return path


def _write_towers(root: pathlib.Path) -> None:
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vit = transformers.Dinov2Config(**sizes, mlp_ratio=2, image_size=32, patch_size=8)
    transformers.Dinov2Model(vit).save_pretrained(root / "image")
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 32},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "resample": 3,
    }
    (root / "image/preprocessor_config.json").write_text(json.dumps(processor))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "of", "picture", *COLOURS, *SHAPES]
    bert = transformers.BertConfig(
        **sizes, intermediate_size=64, vocab_size=len(words), max_position_embeddings=16
    )
    transformers.BertModel(bert, add_pooling_layer=False).save_pretrained(root / "text")
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(root / "text/tokenizer.json"))
    # Else transformers would make BERT's own tokenizer of these words.
    own = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (root / "text/tokenizer_config.json").write_text(json.dumps(own))


def _write_pairs(root: pathlib.Path) -> None:
    lines = []
    for colour in COLOURS:
        for shape in SHAPES:
            name = f"{colour}-{shape}.png"
            draw(colour, shape).save(root / name)
            captions = [f"a {colour} {shape}", f"the picture of a {colour} {shape}"]
            lines.append({"image": name, "captions": captions, "id": f"{colour}-{shape}"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "pairs.jsonl").write_text(text)


def draw(colour: str, shape: str) -> Image.Image:
    """A coloured shape on white, of 40 x 36 pixels."""
    image = Image.new("RGB", (40, 36), "white")
    pen = ImageDraw.Draw(image)
    if shape == "square":
        pen.rectangle((8, 6, 32, 30), fill=colour)
    elif shape == "circle":
        pen.ellipse((8, 6, 32, 30), fill=colour)
    elif shape == "triangle":
        pen.polygon([(20, 4), (34, 32), (6, 32)], fill=colour)
    else:
        pen.rectangle((4, 15, 36, 21), fill=colour)
    return image
