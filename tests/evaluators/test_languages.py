"""Retrieval by language: as on each language's captions and images alone."""

import numpy as np
import pytest

from ape_jax.evaluators import languages, retrieval
from ape_jax.terminal import tables


def unit(rng, *shape):
    z = rng.normal(size=shape).astype(np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_each_language_is_evaluated_on_its_own_captions_and_images(rng):
    zimg, ztxt = unit(rng, 6, 4), unit(rng, 9, 4)
    image_index = np.array([0, 0, 1, 2, 2, 3, 4, 5, 5])
    language = np.array([0, 1, 0, 0, 1, 0, 0, 0, 1])
    found = languages.by_language(zimg, ztxt, image_index, ["en", "ja", "xx"], language)
    assert set(found) == {"en", "ja"}
    rows = [1, 4, 8]
    wanted = retrieval.retrieval_metrics(zimg[[0, 2, 5]], ztxt[rows], np.arange(3))
    assert found["ja"] == wanted
    chance = languages.chance(image_index, ["en", "ja"], language)
    assert chance["ja"]["t2i_r1"] == pytest.approx(1 / 3)
    assert languages.named("test", chance)["test:en"] == chance["en"]


def test_the_table_marks_languages_that_were_not_trained_on():
    metrics = dict.fromkeys(tables.RETRIEVAL, 0.5)
    summary = {f"eval/{n}/{k}": v for n in ("t", "t:en", "t:ja") for k, v in metrics.items()}
    lines = tables.retrieval_table({**summary, "languages": {"unseen": ["ja"]}}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "t", "t:en", "t:ja (not trained on)",
    ]  # fmt: skip
