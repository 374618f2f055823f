"""The demo's towers, drawings and captions in many scripts, with every head and way of tuning.

Through torch and ONNX Runtime, each in a process in which neither jax nor anything of ours can be
imported. Trained parameters are random, or near to the tower's own.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ape_jax.data.specs import open_pairs
from ape_jax.exporters import subprocesses, to_onnx, to_torch
from ape_jax.images.decode import load_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TOWERS = {"image": "demo:vit_s14", "text": "demo:minilm"}
# Two blocks: what a case is about lies in its heads and its tuning. CLS has seen
# little by then, of images and of texts: means are read.
SHORT = {
    "image.size": 56,
    "image.layer": 2,
    "image.pooling": "mean",
    "image.standardize": False,
    "text.layer": 2,
    "text.max_length": 64,
}
LILT = {
    **SHORT,
    "image.head.name": "linear",
    "text.head.name": "linear",
    "text.pooling": "mean",
    "embed": 64,
}
DEMO = {"image.layer": 9, "image.pooling": "cls+mean", "text.head.depth": 2}


def tuned(image, text):
    return {**LILT, "image.tune": image, "text.tune": text}


def heads(image, text, **more):
    return {**SHORT, "image.head.name": image, "text.head.name": text, "embed": 64, **more}


CASES = {
    "ape of the demo": {**DEMO, "image.size": 112, "text.head.width": 1024},
    "lit": tuned("frozen", "full"),
    "heads only": tuned("frozen", "frozen"),
    "layernorm": tuned("layernorm", "layernorm"),
    "bitfit": tuned("bitfit", "bitfit"),
    "append": tuned("append", "append"),
    "append and layernorm": tuned("append+layernorm", "append+layernorm"),
    "adapter": tuned("adapter", "adapter"),
    "adapter and layernorm": tuned("adapter+layernorm", "adapter+layernorm"),
    "adapter and bitfit": tuned("adapter+bitfit", "adapter+bitfit"),
    "lora": tuned("lora", "lora"),
    "pooled_mlp": heads("pooled_mlp", "pooled_mlp"),
    "residual_mlp": heads("residual_mlp", "residual_mlp"),
    "star_mlp": heads("star_mlp", "star_mlp"),
    "token_pool_mlp": heads("token_pool_mlp", "token_pool_mlp", **{"image.pooling": "none"}),
    "transformer and lookup": heads("linear", "transformer+lookup"),
    "identity": {**SHORT, "text.head.name": "identity"},
}
MULTILINGUAL = "ape, multilingual"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Drawings with and without transparency, and names in fourteen languages."""
    root = tmp_path_factory.mktemp("real")
    images = []
    for style in ("twemoji", "openmoji"):
        for i, pair in enumerate(open_pairs(f"demo:{style}:test[:3]")):
            images.append(root / f"{style}{i}.png")
            Image.fromarray(load_image(pair.image)).save(images[-1])
    faded = Image.open(images[0]).convert("RGBA")
    faded.putalpha(120)
    faded.save(images[0])
    captions = {c for pair in open_pairs("demo:twemoji/all:test[:20]") for c in pair.captions}
    texts = sorted(captions, key=lambda c: (len(c), c))
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, 12).astype(int)]
    return SimpleNamespace(
        images=[str(path) for path in images],
        texts=[*chosen, "寿司", "يوم سعيد", "солнце и луна", "x", "a long caption " * 40],
    )


@pytest.fixture
def without_us(tmp_path, monkeypatch):
    """Makes every Python that is started refuse to import jax or us."""
    source = Path(__file__).with_name("in_torch.py").read_text()
    refusal = source[: source.index("import numpy")]
    (tmp_path / "path").mkdir()
    (tmp_path / "path/sitecustomize.py").write_text(refusal)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    script = "import ape_jax"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert "ape_jax must not be needed" in done.stderr


def through(root, run, real):
    """What torch and ONNX Runtime give for the run, by name."""
    made, out = root / "torch", root / "onnx"
    made.mkdir()
    out.mkdir()
    to_torch.write(run, made)
    to_onnx.convert({made: (run, out)})
    inputs = {"images": real.images, "texts": real.texts, "out": str(root / "out.npz")}
    jobs = {
        "torch": ("encode_torch.py", {"directories": [str(made)], "class": "AutoModel"}),
        "onnx": ("encode_onnx.py", {"directories": [str(out)], "batches": [5]}),
    }
    found = {}
    for target, (script, job) in jobs.items():
        subprocesses.run(script, {**job, **inputs}, root, "cannot be run")
        with np.load(root / "out.npz") as arrays:
            found[target] = (
                next(arrays[k] for k in arrays if k.startswith("image")),
                next(arrays[k] for k in arrays if k.startswith("text")),
            )
    shutil.rmtree(root)  # Hundreds of megabytes.
    return found


@pytest.mark.parametrize("name", [*CASES, MULTILINGUAL])
def test_torch_and_onnx_give_the_embeddings_of_jax(name, made, real, tmp_path, without_us):
    settings, towers = CASES.get(name), TOWERS
    if name == MULTILINGUAL:
        settings, towers = {**SHORT, "text.head.depth": 2}, {**TOWERS, "text": "demo:me5_small"}
    run = made(settings, **towers)
    (tmp_path / "work").mkdir()
    found = through(tmp_path / "work", run, real)
    ours = run.encode_images(real.images), run.encode_texts(real.texts)
    worst = {}
    for target, theirs in found.items():
        for a, b in zip(ours, theirs):
            assert a.shape == b.shape
            assert (a * b).sum(axis=1).min() >= 0.99999
            worst[target] = max(worst.get(target, 0.0), float(np.abs(a - b).max()))
            # They would also be equal if all inputs gave one embedding.
            assert (b @ b.T).min() < 0.999
    print(name, json.dumps(worst))
    assert max(worst.values()) <= 1e-4
