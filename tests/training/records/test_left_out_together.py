"""Images that cannot be read, in a run of several processes: all leave out the same ones."""

import json

import pytest

from tests.parallel.test_peers import ends
from tests.runs.checkpoints.test_agreed import COMMAND, started

BROKEN = ("red-circle.png", "blue-square.png")


def broken(folder, flat):
    for name in BROKEN:
        (folder / name).write_bytes(b"no picture")
    return flat, {}


@pytest.mark.parametrize(
    ("views", "cache"), [(1, "disk"), pytest.param(1, "none", marks=pytest.mark.slow)]
)
def test_processes_agree_on_what_is_left_out(views, cache, tiny, tiny_config, tmp_path):
    tiny_config.data.on_error, tiny_config.data.max_skipped = "skip", 0.5
    tiny_config.data.eval, tiny_config.cache.views = {}, views
    if cache == "none":
        tiny_config.cache.dir = "none"
    tiny_config.train.steps, tiny_config.train.checkpoint_every = 4, 2
    # One process only has the files that all of them read.
    file, _ = started(tiny, tiny_config, tmp_path, broken, count=1)
    for code, out, stderr in ends(
        2, COMMAND, "train", str(file).replace("#", "0"), tmp_path / "r", timeout=150
    ):
        assert code == 0 and "came to its end" in out, stderr
    lines = (tmp_path / "r/left_out.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len(found) == 2 and all(any(name in line["where"] for line in found) for name in BROKEN)
    assert {line["kind"] for line in found} == {"not an image"}
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["step"] == 4 and summary["left_out"] == {"train": {"not an image": 2}}
