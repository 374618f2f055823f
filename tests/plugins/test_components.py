"""A head, a loss and a closed form from outside the package, by one file and one registration."""

import dataclasses
import json

import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax import export
from ape_jax.config.components import CLOSED_FORMS, HEADS, LOSSES
from ape_jax.config.fields import integer
from ape_jax.errors import UserError
from ape_jax.planner import estimate
from ape_jax.planner.shapes import Captions
from ape_jax.terminal import command
from ape_jax.training import loop
from tests.plugins.gain_head import GAIN
from tests.plugins.margin_loss import MARGIN
from tests.plugins.mean_shift import MEAN_SHIFT
from tests.plugins.test_tower_family import Host


@pytest.fixture(autouse=True)
def registered():
    """All three, for one test."""
    both = ((HEADS, GAIN), (LOSSES, MARGIN), (CLOSED_FORMS, MEAN_SHIFT))
    for registry, component in both:
        registry.register(component)
    yield
    for registry, component in both:
        registry.unregister(component.name)


@pytest.fixture
def config(new_tiny_config):
    made = config_lib.flatten(new_tiny_config())
    made |= {"train.steps": 3, "cache.dir": "none", "text.head.depth": 4, "text.head.width": 0}
    return made


@pytest.fixture
def ours(config):
    """A config with the head on both sides and the loss."""
    heads = {"image.head.name": "gain", "text.head.name": "gain", "text.head.gain": 3.0}
    return {**config, **heads, "embed": 24, "loss.name": "margin", "loss.margin": 0.5}


def test_they_train_evaluate_restore_and_say_why_they_are_not_exported(
    ours, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(loop.flags, "is_verbose", lambda: True)
    summary = loop.train_and_evaluate(config_lib.resolve(ours), tmp_path / "run")
    assert "eval/train/i2t_r1" in summary and np.isfinite(summary["eval/train/i2t_r1"])
    assert "text_head/gain" in capsys.readouterr().err  # The parameter table.
    written = json.loads((tmp_path / "run/config.json").read_text())
    assert written["text.head.gain"] == 3.0 and written["image.head.gain"] == 2.0

    model = ape_jax.load(tmp_path / "run")
    assert model.encode_text(["a red square"]).shape == (1, 24)
    with pytest.raises(SystemExit):
        flags = [f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", "--inputs="]
        command.run(export.main, ["ape_jax", "--format=torch", *flags])
    error = capsys.readouterr().err
    assert "no torch layer for the head Gain; write --format jax or stablehlo" in error


def test_their_step_is_planned(ours):
    config = config_lib.resolve(ours)
    made = estimate.assemble(config, Host())
    cost = estimate.training(config, Host(), Captions(mean=6, longest=8), made)
    assert cost.fits and cost.rows == 16


def test_a_closed_form_is_run_and_started_from(config, tmp_path):
    flat = {**config, "method": "mean_shift", "closed.share": 0.5, "image.standardize": False}
    summary = loop.train_and_evaluate(config_lib.resolve(flat), tmp_path / "solved")
    found = {"method": "mean_shift", "share": 0.5, "width": 32}
    assert summary["closed_form"] == found and "eval/train/i2t_r1" in summary
    assert ape_jax.load(tmp_path / "solved").encode_text(["a bar"]).shape == (1, 32)

    start = {"start.method": "mean_shift", "method": "train", "image.head.name": "linear"}
    flat |= {**start, "text.head.name": "linear+lookup"}
    started = loop.train_and_evaluate(config_lib.resolve(flat), tmp_path / "started")
    assert started["closed_form"] == found and started["step"] == 3


def test_their_keys_are_checked_and_their_names_offered(ours, config):
    typed = config_lib.default()
    config_lib.override(typed, {"text.head.name": "gain", "text.head.gain": "4"})
    assert typed.text.head.gain == 4.0
    for wrong, words in (
        ({**ours, "text.head.gain": 11.0}, "config.text.head.gain: expected a number from 0 to 10"),
        ({**config, "text.head.gain": 3.0}, "config.text.head.gain: 3.0 has no effect with"),
        ({**config, "loss.margin": 0.5}, "config.loss.margin: 0.5 has no effect with"),
        ({**ours, "loss.smoothing": 0.1}, "config.loss.smoothing: 0.1 .* loss.name='margin'"),
        ({**config, "closed.share": 0.5}, "config.closed.share: 0.5 has no effect with"),
        ({**ours, "text.head.name": "linear+gain"}, "'gain' cannot start at zero"),
        ({**config, "method": "mean"}, "config.method: .* 'mean_shift', found 'mean'"),
        ({**config, "loss.name": "hinge"}, "config.loss.name: .* 'margin', found 'hinge'"),
    ):
        with pytest.raises(UserError, match=words):
            config_lib.resolve(wrong)


def test_a_key_of_another_component_with_another_default_is_refused():
    other = dataclasses.replace(GAIN, name="other", keys={"depth": integer(2, 1)})
    HEADS.register(other)
    try:
        with pytest.raises(ValueError, match="'other' and 'pooled_mlp' declare the key 'depth'"):
            config_lib.default()
    finally:
        HEADS.unregister("other")
