"""A pairs format from outside the package: one file, one registration, and everything works."""

import importlib
import json
import pathlib

import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.data import open_pairs
from ape_jax.data.formats.registry import FORMATS
from ape_jax.errors import UserError
from ape_jax.evaluators import tasks
from ape_jax.training import loop


@pytest.fixture
def toy(tiny, tmp_path, monkeypatch):
    """The tiny world's pairs in the toy format."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent)
    importlib.import_module("toy_pairs").register()
    lines = []
    for line in (tiny / "pairs.jsonl").read_text().splitlines():
        record = json.loads(line)
        lines += [f"{tiny / record['image']} | {caption}" for caption in record["captions"]]
    path = tmp_path / "pairs.toy"
    path.write_text("\n".join(lines))
    yield path
    FORMATS.unregister("toy")


def test_toy_pairs_train_and_evaluate(tiny_config, toy, tmp_path):
    tiny_config.data.pairs = str(toy)
    tiny_config.data.eval = {"toy": str(toy)}
    tiny_config.train.steps = 2
    config = config_lib.resolve(tiny_config)
    summary = loop.train_and_evaluate(config, tmp_path / "run")
    model = ape_jax.load(str(tmp_path / "run"))
    pairs = open_pairs(toy)
    metrics = tasks.evaluate_retrieval(model, pairs)
    assert len(pairs) == 24 and pairs.num_captions == 48
    for name, value in metrics.items():
        assert summary[f"eval/toy/{name}"] == pytest.approx(value)


def test_error_in_a_toy_file_is_the_formats_own(toy: pathlib.Path):
    toy.write_text("a.png a caption")
    with pytest.raises(UserError, match=r"pairs\.toy:1: there is no ' \| '"):
        open_pairs(toy)


def test_without_the_registration_there_is_no_such_format(tmp_path):
    with pytest.raises(UserError, match="is of no known form"):
        open_pairs(tmp_path / "pairs.toy")
