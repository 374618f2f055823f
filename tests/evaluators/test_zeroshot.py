"""Zero-shot accuracy and class embeddings against clip_benchmark's own functions."""

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification

from ape_jax.errors import UserError
from ape_jax.evaluators import zeroshot


def unit(rng, *shape):
    z = rng.normal(size=shape).astype(np.float32)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


@pytest.fixture(autouse=True)
def clip_benchmark_on_this_numpy(monkeypatch):
    """`accuracy` ends in float(array of shape [1]), which numpy 2.4 refuses; that alone changes."""
    monkeypatch.setattr(zeroshot_classification, "float", lambda a: a.item(), raising=False)


def clip_benchmark_accuracy(zimg, zclass, labels, topk=(1, 5)):
    logits = 100.0 * torch.from_numpy(zimg) @ torch.from_numpy(zclass).T
    return zeroshot_classification.accuracy(logits, torch.from_numpy(labels), topk)


@pytest.mark.parametrize("classes", [5, 17, 100, 1000])
def test_equals_clip_benchmark_on_random_embeddings(classes):
    rng = np.random.default_rng(classes)
    zclass = unit(rng, classes, 24)
    labels = rng.integers(0, classes, 400)
    zimg = zclass[labels] + 1.2 * unit(rng, 400, 24)
    ours = zeroshot.zeroshot_metrics(zimg, zclass, labels)
    assert [ours["top1"], ours["top5"]] == pytest.approx(
        clip_benchmark_accuracy(zimg, zclass, labels), abs=1e-12
    )
    assert ours["top1"] < 1


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("classes", [7, 64, 330])
def test_tied_scores_stay_within_what_ties_allow_and_equal_where_they_do_not_decide(
    classes, levels
):
    rng = np.random.default_rng(classes)
    # Integer embeddings: every inner product, and so every tie, is exact.
    zclass = rng.integers(-levels, levels + 1, (classes, 5)).astype(np.float32)
    zclass[3] = zclass[2]
    zimg = rng.integers(-levels, levels + 1, (300, 5)).astype(np.float32)
    scores = zimg @ zclass.T
    labels = np.argsort(-scores, axis=1)[np.arange(300), rng.integers(0, 7, 300)]
    true = scores[np.arange(300), labels][:, None]
    low = 1 + (scores > true).sum(1)
    high = low + (scores == true).sum(1) - 1
    for k, ours in zip((1, 5), zeroshot.zeroshot_metrics(zimg, zclass, labels).values()):
        assert (high <= k).mean() <= ours <= (low <= k).mean()
        fixed = (low <= k) == (high <= k)
        (theirs,) = clip_benchmark_accuracy(zimg[fixed], zclass, labels[fixed], (k,))
        ours = zeroshot.zeroshot_metrics(zimg[fixed], zclass, labels[fixed])
        assert ours[f"top{k}"] == pytest.approx(theirs, abs=1e-12)
        assert not fixed.all()  # ties that torch breaks its own way did occur


@pytest.mark.parametrize("classes", [64, 1000])
def test_top1_equals_clip_benchmark_from_64_classes_up_whatever_the_ties(classes):
    rng = np.random.default_rng(classes)
    zclass = rng.integers(-1, 2, (classes, 4)).astype(np.float32)
    zimg = rng.integers(-1, 2, (500, 4)).astype(np.float32)
    labels = np.argmax(zimg @ zclass.T, axis=1)
    labels[::3] = rng.integers(0, classes, len(labels[::3]))
    (theirs,) = clip_benchmark_accuracy(zimg, zclass, labels, (1,))
    assert zeroshot.zeroshot_metrics(zimg, zclass, labels)["top1"] == pytest.approx(theirs)


def test_all_classes_equal_is_chance():
    labels = np.arange(10)
    ones = np.ones((10, 2), np.float32)
    assert zeroshot.zeroshot_metrics(ones, ones, labels) == {"top1": 0.1, "top5": 0.5}


def test_top5_of_three_classes_is_one():
    eye = np.eye(3, dtype=np.float32)
    assert zeroshot.zeroshot_metrics(eye, eye, np.array([1, 1, 1]))["top5"] == 1.0


@pytest.mark.parametrize("labels", [np.array([0, 3]), np.array([0, -1])])
def test_label_out_of_range_is_refused(labels):
    eye = np.eye(3, dtype=np.float32)
    with pytest.raises(UserError, match=rf"labels\[1\] is {labels[1]}.*0 to 2"):
        zeroshot.zeroshot_metrics(eye[:2], eye, labels)


@pytest.mark.usefixtures("unchecked")
def test_labels_that_are_not_integers_or_too_few_are_refused():
    eye = np.eye(3, dtype=np.float32)
    for labels in (np.array([0.0, 1.0, 2.0]), np.array([0, 1])):
        with pytest.raises(UserError, match="labels has shape"):
            zeroshot.zeroshot_metrics(eye, eye, labels)


class Letters:
    """Encodes a text as its counts of letters; not unit length. Records the calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, texts):
        self.calls.append(list(texts))
        return np.array([[t.count(c) for c in "abcdefgho "] for t in texts], np.float32)


@pytest.mark.parametrize("batch", [1, 4, 5, 1024])
def test_class_embeddings_equal_clip_benchmark_whatever_the_batch(batch):
    encode = Letters()
    names, templates = ["cat", "dog", "a big bee"], ["a {}", "photo of {} here", "{}", "{} face"]

    class Model:
        def encode_text(self, tokens):
            return tokens

    theirs = zeroshot_classification.zero_shot_classifier(
        Model(),
        lambda texts: torch.from_numpy(Letters()(texts)),
        names,
        [t.replace("{}", "{c}") for t in templates],
        "cpu",
        amp=False,
    )
    ours = zeroshot.class_embeddings(encode, names, templates, batch=batch)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.numpy().T, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    assert [len(call) for call in encode.calls[:-1]] == [batch] * (len(encode.calls) - 1)


def test_braces_in_class_names_are_taken_literally():
    encode = Letters()
    zeroshot.class_embeddings(encode, ["{c}", "{} {0}"], ["a {}."])
    assert encode.calls == [["a {c}.", "a {} {0}."]]


def test_no_names_or_a_diverged_encoder_are_refused():
    with pytest.raises(UserError, match="classnames: expected at least one"):
        zeroshot.class_embeddings(Letters(), [], ["{}"])
    with pytest.raises(UserError, match="not finite"):
        zeroshot.class_embeddings(lambda t: np.full((len(t), 2), np.nan), ["cat"], ["{}"])
