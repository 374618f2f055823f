"""The README.md of an exported directory, filled from the run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from ape_jax.errors import UserError
from ape_jax.runs.aligned import AlignedModel
from ape_jax.terminal import tables as report
from ape_jax.towers.files import sources

TORCH = """\
```python
from transformers import AutoModel, AutoProcessor, pipeline

model = AutoModel.from_pretrained(DIR, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(DIR, trust_remote_code=True)
out = model(**processor(images=images, text=texts, return_tensors="pt", padding=True))
out.image_embeds, out.text_embeds            # unit length
out.logits_per_image.softmax(dim=-1)

classify = pipeline("zero-shot-image-classification", model=DIR, trust_remote_code=True)
classify("cat.png", candidate_labels=["cat", "dog"], hypothesis_template="{}")
```

Needs torch and transformers 5; `modeling_ape.py` and `processing_ape.py` are all the code there is.
Give the processor PIL images as they are opened: it turns them as their EXIF says and lays
transparent ones on the colour BACKGROUND; pipelines drop transparency before it sees it.

sentence-transformers (6.2 was tried) loads it as well, for texts and for images that are open:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(DIR, trust_remote_code=True)
model.similarity(model.encode(["a cat"]), model.encode(images))
```
"""
DUAL_ENCODER = """\
```python
from transformers import AutoProcessor, VisionTextDualEncoderModel

model = VisionTextDualEncoderModel.from_pretrained(DIR)
processor = AutoProcessor.from_pretrained(DIR)
inputs = processor(images=images, text=texts, return_tensors="pt", padding=True, truncation=True)
out = model(**inputs)
out.image_embeds, out.text_embeds            # unit length
```

Needs torch and transformers 5, and no code of its own. Where torchvision is installed, transformers
resizes images with it and not with Pillow, which differs by rounding; `backend="pil"` avoids that.
Lay transparent images on the colour BACKGROUND first.
"""
ONNX = """\
```python
import json, onnxruntime
from transformers import AutoProcessor

processor = AutoProcessor.from_pretrained(DIR, trust_remote_code=True)
inputs = processor(images=images, text=texts, return_tensors="np", padding=True)
image = onnxruntime.InferenceSession(DIR + "/image.onnx")
text = onnxruntime.InferenceSession(DIR + "/text.onnx")
zimg = image.run(None, {"pixel_values": inputs["pixel_values"]})[0]          # unit length
ztxt = text.run(None, {key: inputs[key] for key in ("input_ids", "attention_mask")})[0]
config = json.load(open(DIR + "/config.json"))
logits = config["logit_scale"] * zimg @ ztxt.T + (config["logit_bias"] or 0)
```

Needs onnxruntime, and for the processor transformers 5, without torch; `processing_ape.py` is all
the code there is. Batch and text length are free, up to `longest_text` tokens of config.json. A
program in another language makes the inputs by preprocessor_config.json and tokenizer.json, with
the prefix of tokenizer_config.json before every text. Where `image.onnx.data` or `text.onnx.data`
is there, it holds weights and stays beside its graph. Give the processor PIL images as they are
opened: it turns them as their EXIF says and lays transparent ones on the colour BACKGROUND.
"""
STABLEHLO = """\
```python
import json, jax
from jax import export
from safetensors.numpy import load_file
from transformers import AutoProcessor

def half(name):
    program = export.deserialize(open(f"{DIR}/{name}.stablehlo", "rb").read())
    weights, run = jax.device_put(load_file(f"{DIR}/{name}.safetensors")), jax.jit(program.call)
    return lambda *inputs: run(weights, *inputs)

processor = AutoProcessor.from_pretrained(DIR, trust_remote_code=True)
inputs = processor(images=images, text=texts, return_tensors="np", padding=True)
zimg = half("image")(inputs["pixel_values"])                                # unit length
ztxt = half("text")(*(inputs[key].astype("int32") for key in ("input_ids", "attention_mask")))
config = json.load(open(DIR + "/config.json"))
logits = config["logit_scale"] * zimg @ ztxt.T + (config["logit_bias"] or 0)
```

Needs jax (made with JAXVERSION; later ones read the programs for at least six months), flatbuffers
and safetensors, and for the processor transformers 5, without torch; `processing_ape.py` is all the
code there is. The programs are lowered for CPU, TPU and CUDA, with products in f32 on each. Weights
are arguments, under their names in the two safetensors files. Batch and text length are free, up to
`longest_text` tokens of config.json. Each new size is compiled once, so a server pads to few:
`pad_to_multiple_of=8`. Give the processor PIL images as they are opened: it turns them as their
EXIF says and lays transparent ones on the colour BACKGROUND.
"""
JAX = """\
```python
import ape_jax

model = ape_jax.load(DIR)
model.encode_image(["cat.png"]), model.encode_text(["a cat"])
```

Needs ape_jax; the towers are in `towers/`.
"""


def text(aligned: AlignedModel, usage: str, library: str = "transformers") -> str:
    """The card.

    Args:
      aligned: the run.
      usage: how the directory is used: `TORCH`, `DUAL_ENCODER`, `ONNX`, `STABLEHLO` or `JAX`.
      library: what the directory is loaded with, by a hub's name for it.
    """
    config, summary = aligned.config, aligned.summary
    parts = [
        f"---\nlibrary_name: {library}\npipeline_tag: zero-shot-image-classification\n---",
        "# An aligned image-text model",
        f"Taken over by ape_jax from `{aligned.source}`, with nothing trained."
        if aligned.is_imported
        else f"Made by ape_jax out of two pretrained towers: {_method(aligned)}.",
        _filled(usage, config.data.background),
        "## Towers",
        _towers(aligned),
        "" if aligned.is_imported else _training(aligned),
        _figures(summary),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _training(aligned: AlignedModel) -> str:
    summary = aligned.summary
    return (
        f"## Training\n\n{summary.get('pairs', '?')} pairs of `{aligned.config.data.pairs}`, "
        f"{aligned.step} steps; {summary.get('parameters_trained', 0):,} parameters trained and "
        f"{summary.get('parameters_frozen', 0):,} frozen."
    )


def _filled(usage: str, background: Sequence[int]) -> str:
    """The usage with what it leaves to the run."""
    usage = usage.replace("BACKGROUND", str(tuple(background)))
    return usage.replace("JAXVERSION", jax.__version__).strip()


def _method(aligned: AlignedModel) -> str:
    config, sides = aligned.config, []
    for name, side in (("image", aligned.model.image), ("text", aligned.model.text)):
        head = config.side(name).head.name if config.trains else "solved"
        layer = "its output" if side.layer == -1 else f"layer {side.layer}"
        sides.append(f"{name} tower {side.tune}, read at {layer}, head {head}")
    how = "trained contrastively" if config.trains else f"solved by {config.method}"
    if config.trains and aligned.solved:
        how += f" from {aligned.solved['method']}"
    return f"{how}; {'; '.join(sides)}"


def _towers(aligned: AlignedModel) -> str:
    rows = []
    for name, side in (("image", aligned.model.image), ("text", aligned.model.text)):
        spec, digest = side.tower.spec, side.tower.digest[:12]
        rows.append([name, f"`{spec}`", side.tower.config.family, digest, licence(spec)])
    return report.markdown(["side", "tower", "family", "sha256", "licence"], rows)


def licence(spec: str) -> str:
    """The licence that a tower's files state, in a NOTICE or at the head of a model card."""
    for name, pattern in (("NOTICE", r"^Licence: (.+)$"), ("README.md", r"^license: (.+)$")):
        for file in _files(spec, name):
            found = re.search(pattern, file.read_text("utf-8", errors="replace"), re.MULTILINE)
            if found:
                return found[1].strip()
    return "not stated in its files"


def copy_notices(aligned: AlignedModel, directory: Path) -> None:
    """Copies what must stay with the towers' weights: their NOTICE and LICENSE files."""
    for side in (aligned.model.image, aligned.model.text):
        for pattern in ("NOTICE*", "LICENSE*", "LICENCE*"):
            for file in _files(side.tower.spec, pattern):
                shutil.copyfile(file, directory / f"{side.tower.kind}_tower_{file.name}")


def _files(spec: str, pattern: str) -> list[Path]:
    """Files in the directory of a tower; none of one that is a file, or gone since it was read."""
    try:
        return [file for file in sorted(sources.resolve(spec).glob(pattern)) if file.is_file()]
    except UserError:
        return []


def _figures(summary: Mapping[str, object]) -> str:
    found = {k: v for k, v in summary.items() if k.startswith("eval/") and isinstance(v, float)}
    if not found:
        return ""
    rows = [[f"`{key}`", f"{value:.4g}"] for key, value in sorted(found.items())]
    return "## Figures of the run\n\n" + report.markdown(["metric", "value"], rows)
