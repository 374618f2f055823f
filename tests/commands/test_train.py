"""What training prints at its end."""

import pytest

from ape_jax import config as config_lib
from ape_jax.commands import train


@pytest.mark.parametrize(
    ("best", "words"),
    [
        ({}, "step 8; results"),
        ({"best_step": 4}, "step 8, the state of step 4 did best and is used;"),
    ],
)
def test_a_state_that_was_kept_is_named(tiny_config, monkeypatch, best, words):
    monkeypatch.setattr(train.loop, "train_and_evaluate", lambda *_: {"step": 8, **best})
    said = []
    monkeypatch.setattr(train.command, "output", lambda summary, text: said.append(text))
    train.train(config_lib.resolve(tiny_config), "runs/mine", report=False)
    assert said[0].startswith(words)
