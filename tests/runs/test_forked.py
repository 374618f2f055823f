"""A run that starts from another one."""

import json
import shutil

import numpy as np
import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs.directory import workdir
from ape_jax.runs.restore import restore
from ape_jax.training import loop


def forked(source, directory, **changes):
    config = workdir.read_config(source).replace(
        {"start.run": str(source), "train.steps": 2, "optim.warmup": 0, **changes}
    )
    config = config_lib.resolve(config)
    return loop.train_and_evaluate(config, directory)


def leaves(directory):
    tree = restore(directory).trainable
    return np.concatenate([np.ravel(x) for x in tree["text_head"]["dense_1"].values()])


def test_it_has_the_parameters_and_statistics_of_the_other(tiny_run, tiny, tmp_path, capsys):
    """On other pairs: with none but its own statistics, the figures would change."""
    lines = (tiny / "pairs.jsonl").read_text().splitlines()[:17]
    (tiny / "some.jsonl").write_text("\n".join(lines))
    still = {"optim.lr": 0.0, "data.pairs": str(tiny / "some.jsonl")}
    summary = forked(tiny_run, tmp_path / "run", **still)
    assert "which was trained for 40 steps" in capsys.readouterr().err
    before = json.loads((tiny_run / "summary.json").read_text())
    figures = {key: value for key, value in before.items() if key.startswith("eval/")}
    assert {key: summary[key] for key in figures} == pytest.approx(figures)
    np.testing.assert_array_equal(leaves(tmp_path / "run"), leaves(tiny_run))


def test_it_goes_on_training_and_resumes_without_the_other(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "first")
    forked(tmp_path / "first", tmp_path / "run")
    after = leaves(tmp_path / "run")
    assert 0 < np.abs(after - leaves(tiny_run)).max() < 0.1
    shutil.rmtree(tmp_path / "first")
    (tmp_path / "run/summary.json").unlink()
    config = workdir.read_config(tmp_path / "run")
    assert loop.train_and_evaluate(config, tmp_path / "run")["step"] == 2
    np.testing.assert_array_equal(leaves(tmp_path / "run"), after)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text.head.depth": 3}, "has other trained parameters; write --config.text.head.depth=2"),
        ({"start.run": "no-such"}, "config.start.run: .*no-such holds no run"),
        ({"image.size": 64}, "was trained with another image preparation"),
        ({"start.model": "x", "image.standardize": False}, "write method='train' and start.model"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tiny_run, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        forked(tiny_run, tmp_path / "run", **changes)


def test_another_number_of_steps_says_how_to_go_on(tiny_run):
    config = workdir.read_config(tiny_run).replace({"train.steps": 80})
    with pytest.raises(UserError, match=f"with --config.start.run={tiny_run} it starts from"):
        loop.train_and_evaluate(config, tiny_run)
