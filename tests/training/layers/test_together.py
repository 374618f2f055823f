"""Layers that are chosen in a run of several processes: all of them read the same."""

import json

import pytest

from tests.parallel.test_peers import ends
from tests.runs.checkpoints.test_agreed import COMMAND, started

OPEN = {"image.layer": "auto", "text.layer": "auto", "image.pooling": "auto"}


@pytest.mark.slow  # test_folds.py has it of the steps that folds choose; one module keeps both.
def test_processes_read_what_the_first_has_chosen(tiny, tiny_config, tmp_path):
    tiny_config.data.eval = {}
    tiny_config.train.steps, tiny_config.train.checkpoint_every = 2, 2
    file, _ = started(tiny, tiny_config, tmp_path, lambda _, flat: ({**flat, **OPEN}, {}), count=1)
    for code, out, stderr in ends(
        2, COMMAND, "train", str(file).replace("#", "0"), tmp_path / "r", timeout=150
    ):
        assert code == 0 and "came to its end" in out, stderr
    record = json.loads((tmp_path / "r/layers.json").read_text())
    config = json.loads((tmp_path / "r/config.json").read_text())
    assert set(record["chosen"]) == set(OPEN) and record["images"] == 24
    assert {key: config[key] for key in OPEN} == record["chosen"]
