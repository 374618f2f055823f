"""Each part of speed and of plans comes to its end on a processor, in small."""

import json
import math
import os
import pathlib
import sys
import time

import pytest

from tests.accelerator import parts
from tests.accelerator.figures import Figures
from tests.accelerator.plan import steps
from tests.accelerator.settings import Settings

ROOT = pathlib.Path(__file__).parents[2]
FAST = [name for name in parts.PARTS if name.startswith("fast/")]


def lines_of(name, folder, seconds=300.0):
    """What the part prints."""
    found = []
    deadline = time.monotonic() + seconds
    settings = Settings(device="cpu", small=True, out=folder, deadline=deadline)
    figures = Figures(part=name, write=lambda line: found.append(json.loads(line)))
    parts.load(name)(settings, figures)
    return found


@pytest.mark.parametrize("name", FAST)
def test_a_part_of_speed_measures_something_in_every_figure(name, tmp_path):
    found = lines_of(name, tmp_path)
    rates = [x for x in found if x["unit"].endswith("/s")]
    assert rates and not [x for x in found if "left_out" in x]
    for line in rates:
        assert line["value"] > 0
        assert all(not isinstance(x, float) or math.isfinite(x) for x in line["beside"].values())


def test_torch_stands_beside_ours_and_their_ratio_is_that_of_the_rates(tmp_path):
    pytest.importorskip("torch")
    for line in lines_of("fast/head", tmp_path):
        ratio = line["value"] / line["beside"]["torch bfloat16"]
        assert line["beside"]["times the best of torch"] == pytest.approx(ratio)
        assert 0 < line["beside"]["share of the card's products"]


def test_without_time_a_part_says_what_it_leaves_out(tmp_path):
    found = lines_of("fast/head", tmp_path, seconds=0.0)
    assert found and all("were left, and it may take" in x["left_out"] for x in found)


def test_the_planner_s_chip_is_that_of_the_device():
    kinds = ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H200", "NVIDIA A100-SXM4-40GB")
    assert [steps.chip_of(kind) for kind in kinds] == ["h100", "h100", "h200", "a100"]
    assert not steps.chip_of("TPU v5 lite")


def test_without_the_compiler_plans_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "PLUGINS", ("no_such_plugin",))
    (line,) = lines_of("plan/steps", tmp_path)
    assert "CUDA plugin" in line["left_out"]


def test_programs_are_planned_and_timed(tmp_path, monkeypatch):
    compilers = pathlib.Path(sys.prefix, "gpu")
    if not compilers.is_dir():
        pytest.skip("the compiler for GPUs is missing; launch/test.sh makes it")
    monkeypatch.syspath_prepend(str(compilers))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{compilers}")
    machine, *programs = lines_of("plan/steps", tmp_path)
    assert machine["beside"] == {"chip": "h100"}
    assert len(programs) == 2
    for line in programs:
        found = line["beside"]
        assert found["predicted MiB"] > 0 and found["MiB by the compiler here"] > 0
        assert line["value"] == pytest.approx(found["predicted ms"] / found["measured ms"])
