"""The whole path of the yardstick on small stand-ins: study, zero-shot, published figures."""

import json

import pytest

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.errors import UserError
from ape_jax.studies.config import StudyConfig
from tests.benchmarks import yardstick


def test_the_whole_path_runs_on_stand_ins(tiny, tmp_path, monkeypatch):
    pairs = str(tiny / "pairs.jsonl")
    rows = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()][:12]
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text(
        "\n".join(
            json.dumps({"image": str(tiny / row["image"]), "label": f"class {i % 3}"})
            for i, row in enumerate(rows)
        )
    )
    names = tmp_path / "names.txt"
    names.write_text("class 0\nclass 1\nclass 2\n")
    arguments = {
        **{"image": str(tiny / "image"), "text": str(tiny / "text"), "pairs": pairs},
        **{"eval": pairs, "sizes": "8+16", "seeds": 1},
    }
    changes = {
        "study.methods": ("chance", "ridge", "cca"),
        "study.reference": "cca",
        "image.dtype": "float32",
        "text.dtype": "float32",
        "train.batch": 8,
        "train.steps": 4,
        "optim.warmup": 1,
        "cache.dir": str(tmp_path / "features"),
    }
    zeroshot = str(labelled), str(names), "none"
    text = yardstick.run(arguments, tmp_path / "run", *zeroshot, changes)
    plain = " ".join(text.split())
    assert "flickr30k (24 images): R@10, mean of both ways | 8 pairs | 16 pairs" in plain
    assert "CCA minus the method in the row" in plain
    assert "zero-shot top-1 | 8 pairs | 16 pairs" in plain
    assert "Flickr30k text R@1 56.8" in plain and "2506.16895" in plain
    kept = json.loads((tmp_path / "run/cca/n16/seed0/zeroshot.json").read_text())
    assert 0 <= kept["top1"] <= 1
    monkeypatch.setattr(yardstick.evaluate, "zeroshot", None)  # Done, and not repeated.
    assert yardstick.run(arguments, tmp_path / "run", *zeroshot, changes) == text


def test_the_recipe_has_the_protocols_towers_pairs_and_tests():
    config = config_lib.resolve(recipes.read("yardstick"), StudyConfig)
    assert config.image.tower == "hf:facebook/dinov2-large"
    assert config.text.tower == "hf:sentence-transformers/all-roberta-large-v1"
    assert config.study.sizes == (1000, 10_000, 80_000) and config.study.seeds == 3
    assert dict(config.data.eval) == {"flickr30k": "dataset_flickr30k.json:test"}
    assert config.image.tune == config.text.tune == "frozen"
    with pytest.raises(UserError, match="yardstick takes sizes=1000"):
        recipes.read("yardstick:sizes=many")
