"""Each part of `correct` on a processor, in small: nothing is wrong, and something is shown."""

import json
import time

import pytest

from ape_jax import config as config_lib
from tests.accelerator import parts
from tests.accelerator.correct import resume
from tests.accelerator.figures import Figures, wrong
from tests.accelerator.settings import Settings


@pytest.mark.parametrize("name", parts.named(["correct"]))
def test_the_part_is_right_on_a_processor(name, tmp_path):
    lines = []
    figures = Figures(part=name, write=lambda line: lines.append(json.loads(line)))
    deadline = time.monotonic() + 300
    settings = Settings(device="cpu", small=True, out=tmp_path, deadline=deadline)
    parts.load(name)(settings, figures)
    assert not wrong(lines)
    assert any("right" in line or "left_out" in line for line in lines)


@pytest.mark.parametrize("recipe", ["ape", "clip"])
def test_what_is_killed_in_full_is_a_run_too(recipe, tiny):
    assert config_lib.resolve(resume.config_of(recipe, tiny)).train.steps == 30
