"""How an exported directory is used, a text for each format; `DIR` is filled in by `card_facts`."""

TORCH = """\
```python
from transformers import AutoModel, AutoProcessor, pipeline

DIR = "."  # this directory
model = AutoModel.from_pretrained(DIR, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(DIR, trust_remote_code=True)
out = model(**processor(images=images, text=texts, return_tensors="pt", padding=True))
out.image_embeds, out.text_embeds            # unit length
out.logits_per_image.softmax(dim=-1)

classify = pipeline("zero-shot-image-classification", model=DIR, trust_remote_code=True)
classify("cat.png", candidate_labels=["cat", "dog"], hypothesis_template="{}")
```

Needs torch and transformers 5; `modeling_ape.py`, `processing_ape.py`, `essential_ape.py` and
`checksums_ape.py` are all the code there is. They compare the files with SHA256SUMS as they load.
Give the processor paths, or PIL images as they are opened: it turns them as
their EXIF says and lays transparent ones on the colour BACKGROUND; pipelines drop transparency
before it sees it. Of a path, odd metadata that Pillow refuses do no harm.

sentence-transformers (6.2 was tried) loads it as well, for texts and for images that are open:

```python
from sentence_transformers import SentenceTransformer

DIR = "."  # this directory
model = SentenceTransformer(DIR, trust_remote_code=True)
model.similarity(model.encode(["a cat"]), model.encode(images))
```
"""
DUAL_ENCODER = """\
```python
from transformers import AutoProcessor, VisionTextDualEncoderModel

DIR = "."  # this directory
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

DIR = "."  # this directory
processor = AutoProcessor.from_pretrained(DIR, trust_remote_code=True)
inputs = processor(images=images, text=texts, return_tensors="np", padding=True)
image = onnxruntime.InferenceSession(DIR + "/image.onnx")
text = onnxruntime.InferenceSession(DIR + "/text.onnx")
zimg = image.run(None, {"pixel_values": inputs["pixel_values"]})[0]          # unit length
ztxt = text.run(None, {x.name: inputs[x.name] for x in text.get_inputs()})[0]
config = json.load(open(DIR + "/config.json"))
logits = config["logit_scale"] * zimg @ ztxt.T + (config["logit_bias"] or 0)
```

Needs onnxruntime, and for the processor transformers 5, without torch; `processing_ape.py`,
`essential_ape.py` and `checksums_ape.py` are all the code there is; the processor compares all
files with SHA256SUMS as it loads. Batch and text length are free, up to `longest_text`
tokens of config.json. A program in another language makes the inputs by preprocessor_config.json
and tokenizer.json, with the prefix of tokenizer_config.json before every text. Where
`image.onnx.data` or `text.onnx.data` is there, it holds weights and stays beside its graph. Give
the processor paths, or PIL images as they are opened: it turns them as their EXIF says and lays
transparent ones on the colour BACKGROUND.
"""
STABLEHLO = """\
```python
import json, jax
from jax import export
from safetensors.numpy import load_file
from transformers import AutoProcessor

DIR = "."  # this directory

def half(name):
    program = export.deserialize(open(f"{DIR}/{name}.stablehlo", "rb").read())
    weights, run = jax.device_put(load_file(f"{DIR}/{name}.safetensors")), jax.jit(program.call)
    return lambda *inputs: run(weights, *inputs)

processor = AutoProcessor.from_pretrained(DIR, trust_remote_code=True)
inputs = processor(images=images, text=texts, return_tensors="np", padding=True)
zimg = half("image")(inputs["pixel_values"])                                # unit length
keys = [key for key in ("input_ids", "attention_mask", "language") if key in inputs]
ztxt = half("text")(*(inputs[key].astype("int32") for key in keys))
config = json.load(open(DIR + "/config.json"))
logits = config["logit_scale"] * zimg @ ztxt.T + (config["logit_bias"] or 0)
```

Needs jax (made with JAXVERSION; later ones read the programs for at least six months), flatbuffers
and safetensors, and for the processor transformers 5, without torch; `processing_ape.py`,
`essential_ape.py` and `checksums_ape.py` are all the code there is; the processor compares all
files with SHA256SUMS as it loads. The programs are lowered for CPU, TPU and CUDA, with
products in f32 on each. Weights are arguments, under their names in the two safetensors files.
Batch and text length are free, up to `longest_text` tokens of config.json. Each new size is
compiled once, so a server pads to few: `pad_to_multiple_of=8`. Give the processor paths, or PIL
images as they are opened: it turns them as their EXIF says and lays transparent ones on the colour
BACKGROUND.
"""
JAX = """\
```python
import ape_jax

DIR = "."  # this directory
model = ape_jax.load(DIR)
model.encode_image(["cat.png"]), model.encode_text(["a cat"])
```

Needs ape_jax; the towers are in `towers/`.
"""
