"""A run as an open_clip model, under the evaluations of clip_benchmark and open_clip themselves."""

import copy
import importlib.util
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from PIL import Image

from ape_jax.data.labelled import open_labelled
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import tasks, zeroshot
from ape_jax.judges import as_open_clip
from ape_jax.towers.precomputed import VectorPrepare

TEMPLATES = ("{}", "a {}", "the picture of a {}")


@pytest.fixture(scope="module")
def model(aligner):
    return as_open_clip(aligner).eval()


@pytest.fixture(scope="module")
def records(tiny):
    return [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]


class Loader(list):
    """Batches, as a data loader gives them, and the data set behind them."""

    def __init__(self, batches, **dataset):
        super().__init__(batches)
        self.dataset = type("DataSet", (), dataset)


def loader(model, tiny, records, targets, **dataset):
    images = [model.transform(Image.open(tiny / r["image"])) for r in records]
    starts = range(0, len(records), 10)
    return Loader(
        [(torch.stack(images[i : i + 10]), targets(i, i + 10)) for i in starts], **dataset
    )


def test_embeddings_are_those_of_the_run(aligner, model, tiny):
    clear = Image.new("RGBA", (50, 40), (255, 0, 0, 90))
    images = [Image.open(tiny / "red-bar.png"), clear] * 5
    texts = ["a red bar", "blue", "the picture of a green circle " * 9] * 5
    z = model.encode_image(torch.stack([model.transform(image) for image in images]))
    t = model.encode_text(model.tokenizer(texts))
    assert z.dtype == t.dtype == torch.float32 and model.tokenizer("red").shape == (1, 16)
    np.testing.assert_allclose(z.numpy(), aligner.encode_image(images), atol=1e-6)
    np.testing.assert_allclose(t.numpy(), aligner.encode_text(texts), atol=1e-6)
    np.testing.assert_allclose(
        model.encode_text(model.tokenizer(texts), normalize=True).numpy(), t.numpy(), atol=1e-6
    )


@pytest.mark.parametrize("amp", [True, False])
def test_zero_shot_of_clip_benchmark_has_our_figures(
    amp, aligner, model, tiny, records, tmp_path, monkeypatch
):
    # `accuracy` ends in float(array of shape [1]), which numpy 2.4 refuses; that alone changes.
    monkeypatch.setattr(zeroshot_classification, "float", lambda a: a.item(), raising=False)
    names = sorted(r["id"].replace("-", " ") for r in records)
    labels = [names.index(r["id"].replace("-", " ")) for r in records]
    data = loader(model, tiny, records, lambda i, j: torch.tensor(labels[i:j]), classes=names)
    templates = [t.replace("{}", "{c}") for t in TEMPLATES]
    theirs = zeroshot_classification.evaluate(
        as_open_clip(aligner).double(), data, model.tokenizer, names, templates, "cpu", amp=amp
    )
    rows = [{"image": str(tiny / r["image"]), "label": n} for r, n in zip(records, labels)]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ours = tasks.evaluate_zeroshot(aligner, open_labelled(tmp_path / "l.jsonl", names), TEMPLATES)
    assert (ours["top1"], ours["top5"]) == pytest.approx((theirs["acc1"], theirs["acc5"]), abs=1e-6)
    assert 1 / 24 < ours["top1"] < ours["top5"] <= 1


def test_autocast_leaves_the_scores_of_f64_embeddings_alone(aligner, tiny, records):
    model = as_open_clip(aligner).double()
    data = loader(model, tiny, records[:10], lambda i, j: torch.zeros(j - i))
    classes = model.encode_text(model.tokenizer(["red bar", "blue circle"])).T

    def scores(model, classes, amp):
        return zeroshot_classification.run_classification(model, classes, data, "cpu", amp)[0]

    exact = scores(model, classes, False)
    assert (scores(model, classes, True) - exact).abs().max() < 1e-5
    assert (scores(model.float(), classes.float(), True) - exact).abs().max() > 1e-3


def test_retrieval_of_clip_benchmark_has_our_figures(aligner, model, tiny, records):
    data = loader(model, tiny, records, lambda i, j: [r["captions"] for r in records[i:j]])
    theirs = zeroshot_retrieval.evaluate(model, data, model.tokenizer, "cpu", True, [1, 5, 10])
    ours = tasks.evaluate_retrieval(aligner, open_pairs(tiny / "pairs.jsonl"))
    for k in (1, 5, 10):
        assert theirs[f"text_retrieval_recall@{k}"] == pytest.approx(ours[f"i2t_r{k}"], abs=1e-6)
        assert theirs[f"image_retrieval_recall@{k}"] == pytest.approx(ours[f"t2i_r{k}"], abs=1e-6)
    assert 2 / 24 < ours["t2i_r1"] <= ours["t2i_r5"]


def test_classifier_of_open_clip_is_our_class_embeddings(aligner, model):
    (folder,) = importlib.util.find_spec("open_clip").submodule_search_locations
    file = Path(folder) / "zero_shot_classifier.py"  # The package around it wants torchvision.
    spec = importlib.util.spec_from_file_location("zero_shot_classifier", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = ["red bar", "blue circle", "green triangle"]
    theirs = module.build_zero_shot_classifier(model, model.tokenizer, names, TEMPLATES)
    ours = zeroshot.class_embeddings(aligner.encode_text, names, TEMPLATES)
    np.testing.assert_allclose(theirs.numpy().T, ours, atol=1e-6)


def test_a_call_gives_features_and_scale_as_open_clip_does(aligner, model, tiny):
    image = model.transform(Image.open(tiny / "red-bar.png"))[None]
    text = model.tokenizer(["a red bar", "blue"])
    features, nothing, scale = model(image=image)
    assert nothing is None and scale.item() == pytest.approx(aligner.scale, rel=1e-6)
    assert model.logit_scale.item() == pytest.approx(math.log(aligner.scale), rel=1e-6)
    biased = copy.copy(aligner)
    biased.bias = -3.0
    other = as_open_clip(biased)
    other.output_dict = True
    out = other(image, text)
    assert set(out) == {"image_features", "text_features", "logit_scale", "logit_bias"}
    logits = scale * features @ out["text_features"].T - 3
    torch.testing.assert_close(other.get_logits(image, text)[0], logits)


def test_the_module_says_type_and_workers_get_no_model(model):
    assert model.double().encode_text(model.tokenizer("red")).dtype == torch.float64
    assert model.float().encode_text(model.tokenizer("red")).dtype == torch.float32
    assert len(pickle.dumps(model.transform)) < 2000


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.encode_image(torch.zeros(2, 3, 40, 32)), r"\[B, 3, 32, 32\].*transform"),
        (lambda m: m.encode_image(torch.zeros(3, 32, 32)), r"found \[3, 32, 32\]"),
        (lambda m: m.encode_text(torch.ones(2, 77, dtype=torch.long)), r"T up to 16"),
        (lambda m: m.encode_text(torch.ones(2, 4)), r"float32 \[2, 4\].*tokenizer"),
        (lambda m: m.encode_text(torch.full((2, 4), -1)), "tokenizer"),
        (lambda m: m.tokenizer([3]), "int"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_tensors_are_one_sentence(model, call, words):
    with pytest.raises(UserError, match=words):
        call(model)


def test_a_run_on_given_vectors_has_no_judge(aligner):
    given = copy.copy(aligner)
    given.prepare = VectorPrepare("text", 8)
    with pytest.raises(UserError, match=r"text\.tower: .*given vectors"):
        as_open_clip(given)


def test_torch_is_not_imported_before_it_is_needed():
    code = "import sys, ape_jax.judges; sys.exit('torch' in sys.modules or 'jax' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", code]).returncode
