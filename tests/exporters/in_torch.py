"""Loads exported directories where there is neither jax nor ape_jax; run as a script, by the tests.

python in_torch.py JOB.json
"""

import importlib.abc
import json
import os
import sys

os.environ["USE_JAX"] = "0"  # Where `datasets` is installed, sentence-transformers asks it for jax.
FORBIDDEN = {"jax", "jaxlib", "flax", "ape_jax", "orbax", "optax", "ml_collections"}


class Refusal(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} must not be needed")


sys.meta_path.insert(0, Refusal())

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402


def load(model_class, directory, **options):
    model, info = model_class.from_pretrained(directory, output_loading_info=True, **options)
    assert not any(info.values()), (directory, info)
    return model.eval(), transformers.AutoProcessor.from_pretrained(directory, **options)


def embed(model, processor, job, out, name):
    """Through the model's two methods and through its forward pass, which must be the same."""
    images = [Image.open(path) for path in job["images"]]
    batch = processor(images=images, text=job["texts"], return_tensors="pt", padding=True)
    named = processor(images=job["images"], text=job["texts"], return_tensors="pt", padding=True)
    assert torch.equal(named["pixel_values"], batch["pixel_values"])  # Of paths.
    z = model.get_image_features(batch["pixel_values"])
    language = {key: batch[key] for key in ("language",) if key in batch}
    t = model.get_text_features(batch["input_ids"], batch["attention_mask"], **language)
    both = model(**batch)
    assert torch.equal(both.image_embeds, z) and torch.equal(both.text_embeds, t)
    out[f"{name}/images"], out[f"{name}/texts"] = z.numpy(), t.numpy()
    out[f"{name}/logits"] = both.logits_per_image.numpy()
    assert torch.equal(both.logits_per_text, both.logits_per_image.T)


def pipeline(directory, job, out):
    kind = "zero-shot-image-classification"
    classify = transformers.pipeline(kind, model=directory, trust_remote_code=True)
    labels, template = job["texts"][:3], "{}"
    found = classify(job["images"][-1], candidate_labels=labels, hypothesis_template=template)
    scores = {one["label"]: one["score"] for one in found}
    out["pipeline"] = np.array([scores[label] for label in labels])


def sentence_transformer(directory, job, out):
    from sentence_transformers import SentenceTransformer  # Ten seconds.

    model = SentenceTransformer(directory, trust_remote_code=True)
    out["sentence/texts"] = model.encode(job["texts"])
    out["sentence/images"] = model.encode([Image.open(path) for path in job["images"]])
    out["sentence/width"] = np.array(model.get_embedding_dimension())


def dual_encoders(job, out):
    for name, directory in job["dual_encoders"].items():
        model, processor = load(transformers.VisionTextDualEncoderModel, directory)
        images = [Image.open(path).convert("RGB") for path in job["plain_images"]]
        options = {"return_tensors": "pt", "padding": True, "truncation": True}
        both = model(**processor(images=images, text=job["texts"], **options))
        out[f"{name}/images"], out[f"{name}/texts"] = (
            both.image_embeds.numpy(),
            both.text_embeds.numpy(),
        )


@torch.inference_mode()
def main(job):
    out, options = {}, {"trust_remote_code": True}
    for name, directory in job["directories"].items():
        model, processor = load(transformers.AutoModel, directory, **options)
        embed(model, processor, job, out, name)
        if name == job["again"]:
            model.save_pretrained(job["copy"])
            processor.save_pretrained(job["copy"])
            embed(*load(transformers.AutoModel, job["copy"], **options), job, out, "again")
        if name == job["pipeline"]:
            pipeline(directory, job, out)
        if name == job["sentence"]:
            sentence_transformer(directory, job, out)
    dual_encoders(job, out)
    np.savez(job["out"], **out)


with open(sys.argv[1], encoding="utf-8") as file:
    main(json.load(file))
