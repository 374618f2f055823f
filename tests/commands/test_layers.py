"""`ape-jax layers`: its tables, its record and its picture."""

import json

import pytest
from PIL import Image

from ape_jax import config as config_lib
from ape_jax.align.layers import choice
from ape_jax.commands import layers
from ape_jax.terminal import flags


@pytest.fixture
def resolved(tiny_config):
    head = {"image.head.name": "linear", "embed": 8}
    return config_lib.resolve({**config_lib.flatten(tiny_config), **head})


def test_what_has_an_effect_is_chosen_where_nothing_is_open(
    resolved, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    flags.reset()
    monkeypatch.setattr(choice, "LEAST_CONCEPTS", 4)
    layers.layers(resolved, str(tmp_path / "run"), plots=True)
    record = json.loads((tmp_path / "run/layers.json").read_text())
    # Heads on tokens do not pool.
    assert set(record["chosen"]) == {"image.layer", "image.pooling", "text.layer"}
    with Image.open(tmp_path / "run/layers.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
    shown = " ".join(capsys.readouterr().out.split())  # Columns are aligned.
    assert "| image \\ text | 0 | 1 | -1 |" in shown and "--config.image.layer=" in shown
    assert "| layer | pooling | mrr | recall at 10 |" in shown


def test_rows_and_columns_of_the_table_are_the_layers(tmp_path):
    found = [
        {"image": [i], "text": [t], "overlap": 0.5, "null": 0.1, "spread": 0.0, "score": i + t / 10}
        for i in (0, -1)
        for t in (0, 1, -1)
    ]
    images, texts, scores = layers.overlap_grid({"neighbours": found})
    assert (images, texts) == (["0", "-1"], ["0", "1", "-1"])
    assert scores == [[0.0, 0.1, -0.1], [-1.0, -0.9, -1.1]]
