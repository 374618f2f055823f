"""Classifiers beside image towers: rows and pooling belong together, and labels are checked."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers import classifier

CLASSES = 5
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": CLASSES}
SIZES |= {"image_size": 32, "patch_size": 8}
VIT, DINO = SIZES | {"intermediate_size": 48}, SIZES | {"mlp_ratio": 2}
TABLE = {"use_shared_relative_position_bias": True}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 9}
CONVNET = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "num_labels": CLASSES}
CONVNET |= {"image_size": 32}
MODELS = {
    "vit": ("ViT", VIT),
    "deit": ("DeiT", VIT),
    "deit with teacher": ("DeiT", VIT),
    "dinov2": ("Dinov2", DINO),
    "dinov2 with registers": ("Dinov2WithRegisters", DINO | {"num_register_tokens": 3}),
    "beit": ("Beit", VIT | TABLE),
    "beit, CLS": ("Beit", VIT | {"use_mean_pooling": False}),
    "data2vec-vision": ("Data2VecVision", VIT | TABLE),
    "vit_msn": ("ViTMSN", VIT),
    "ijepa": ("IJepa", VIT),
    "siglip": ("Siglip", {"vision_config": VIT, "text_config": TEXT, "num_labels": CLASSES}),
    "convnext": ("ConvNext", CONVNET),
    "convnextv2": ("ConvNextV2", CONVNET),
}


def save(name, path):
    """A saved classifier in which every parameter is random."""
    kind, sizes = MODELS[name]
    teacher = "WithTeacher" if "teacher" in name else ""
    model = getattr(transformers, f"{kind}ForImageClassification{teacher}")(
        getattr(transformers, f"{kind}Config")(**sizes)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.save_pretrained(path)
    return model.eval()


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A folder with a ViT and its classifier."""
    path = tmp_path_factory.mktemp("vit")
    save("vit", path)
    return path


@pytest.fixture
def copy(vit, tmp_path):
    """A copy of it: `copy(config changes)`."""

    def make(**changes):
        config = json.loads((vit / "config.json").read_text())
        config = {k: v for k, v in {**config, **changes}.items() if v is not None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes((vit / "model.safetensors").read_bytes())
        return tmp_path

    return make


@pytest.mark.parametrize("name", MODELS)
def test_rows_and_pooling_give_the_logits_of_transformers(name, tmp_path, rng):
    model = save(name, tmp_path)
    image = rng.normal(size=(3, 32, 32, 3)).astype(np.float32)
    with torch.inference_mode():
        out = model(torch.tensor(image).permute(0, 3, 1, 2))
    want = (out.cls_logits if "teacher" in name else out.logits).numpy()
    found, tower = classifier.read(tmp_path), towers.load(tmp_path, kind="image", dtype="float32")
    pooled = tower.tower.apply(tower.params, {"image": image}, pooling=found.pooling).pooled
    layer = model.cls_classifier if "teacher" in name else model.classifier
    got = np.asarray(pooled) @ found.rows.T + layer.bias.detach().numpy()
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
    assert np.abs(want).max() > 0.1  # And these are no zeros.


def test_labels_are_those_of_the_config_in_the_order_of_rows(copy):
    named = {str(i): f"name {i}, other {i}" for i in reversed(range(CLASSES))}
    found = classifier.read(copy(id2label=named, label2id=None))
    assert found.labels == tuple(f"name {i}, other {i}" for i in range(CLASSES))
    assert (len(found), found.pooling, found.own_pooling) == (CLASSES, "cls", "cls")


def test_numbers_of_transformers_and_no_labels_are_no_names(copy):
    numbered = {str(i): f"LABEL_{i}" for i in range(CLASSES)}
    assert classifier.read(copy(id2label=numbered)).labels is None
    assert classifier.read(copy(id2label=None)).labels is None


LABELS = {str(i): f"name {i}" for i in range(CLASSES)}


@pytest.mark.parametrize(
    "labels, words",
    [
        ({k: v for k, v in LABELS.items() if k != "3"}, "lacks '3'"),
        (LABELS | {"5": "more"}, "names 6 classes, and the classifier has 5 rows"),
        (LABELS | {"2": 7}, "class 2 is no text"),
        (LABELS | {"2": "x" * 5000}, "class 2 is no text of at most"),
        (["name"] * CLASSES, "write an object"),
    ],
)
def test_labels_that_do_not_fit_the_rows_are_refused(copy, labels, words):
    with pytest.raises(UserError, match=f"config.json: 'id2label'.*{words}"):
        classifier.read(copy(id2label=labels))


def changed(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x: x.pop("classifier.weight"), "holds no classifier"),
        (lambda x: x.update({"classifier.weight": np.zeros((5, 31), np.float32)}), "32 numbers"),
        (lambda x: x.update({"classifier.weight": np.zeros((1, 32), np.float32)}), "2 to"),
        (lambda x: x["classifier.weight"].__setitem__((3, 1), np.nan), "row 3 .*not finite"),
        (
            lambda x: x.update({"module.classifier.weight": np.zeros((5, 32), np.float32)}),
            "2 classifiers",
        ),
        (
            lambda x: x.update({"head.weight": np.zeros((5, 32), np.float32)}),
            "2 classifiers, classifier.weight, head.weight; keep one",
        ),
        (
            lambda x: x.update({"vit.pooler.dense.weight": np.zeros((32, 32), np.float32)}),
            "'classifier.weight' reads what 'vit.pooler.dense.weight' makes",
        ),
    ],
)
def test_rows_that_are_none_are_refused(copy, change, words):
    with pytest.raises(UserError, match=words):
        classifier.read(changed(copy(), change))


def test_a_family_without_classifiers_is_refused_by_name(finished):
    path = finished("clip")[1]
    with pytest.raises(UserError, match="no classifier is read of CLIP"):
        classifier.read(path)
