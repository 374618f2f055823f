"""Commands on a run that leaves out what cannot be used: evaluate and index."""

import json
import shutil

import pytest

import ape_jax
from ape_jax.commands import evaluate, index
from ape_jax.errors import UserError


@pytest.fixture
def run(tiny_run, tmp_path):
    """A work directory with this share in `data.max_skipped`."""

    def make(share):
        path = tmp_path / f"run{share}"
        shutil.copytree(tiny_run, path)
        flat = json.loads((path / "config.json").read_text())
        flat |= {"data.on_error": "skip", "data.max_skipped": share}
        (path / "config.json").write_text(json.dumps(flat))
        return str(path)

    return make


def test_retrieval_and_index_leave_out_every_kind(run, broken, tiny, tmp_path, capsys):
    path = run(0.4)
    left, _ = evaluate.retrieval(path, str(broken))
    whole, _ = evaluate.retrieval(path, str(tiny / "pairs.jsonl"))
    assert left == pytest.approx(whole)
    assert "left out 4 of 32 rows and 4 of 28 images" in capsys.readouterr().err
    nothing = index.Questions(texts=(), images=(), k=1, exact=False)
    table = index.Table(path="", dtype="float32")
    found, text = index.index(path, str(broken), str(tmp_path / "index"), nothing, table)
    assert (found["images"], found["unreadable"]) == (24, 2) and "text.png" in text
    assert "left out 4 of 32 rows and 2 of 28 images" in capsys.readouterr().err
    model = ape_jax.load(path)
    assert model.evaluate(str(broken))["i2t_r1"] == pytest.approx(whole["eval/data/i2t_r1"])


def test_zero_shot_leaves_out_images_that_cannot_be_used(run, broken):
    names = ("red-bar.png", "blue-bar.png", "gone.png", "cut.png", "empty.png")
    path = broken.parent / "labelled.jsonl"
    lines = [{"image": name, "label": "bar"} for name in names]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures, _ = evaluate.zeroshot(run(0.8), str(path), "", "none")
    assert figures["eval/zeroshot/top1"] == 1.0
    with pytest.raises(UserError, match=r"--data: .*data\.max_skipped=0\.5"):
        evaluate.zeroshot(run(0.5), str(path), "", "none")


def test_too_many_end_an_evaluation_with_the_first_of_each_kind(run, broken):
    with pytest.raises(UserError, match=r"data: 4 of 32 rows and 4 of 28 images .*cut\.png"):
        evaluate.retrieval(run(0.22), str(broken))
