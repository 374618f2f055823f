"""What lies on the devices: each holds its share of a model, none of it twice, as a plan says."""

import gc
import math

import jax
import pytest

from ape_jax import config as config_lib
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import estimate
from ape_jax.planner.shapes import Captions
from ape_jax.planner.target import Chip, Target
from ape_jax.runs import build
from ape_jax.runs.restore import restore
from ape_jax.training import loop, run

SLACK = 4096  # Bytes: keys, scalars, and constants of programs.


def live():
    """Bytes of all live arrays on each device."""
    gc.collect()
    found = dict.fromkeys(jax.devices(), 0)
    for array in jax.live_arrays():  # Asked for a shard, it would make one more live array of it.
        for device in array.sharding.device_set:
            found[device] += share(array)
    return list(found.values())


def share(*trees):
    """Bytes of these trees that a device holds."""
    leaves = jax.tree.leaves(trees)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


@pytest.fixture
def sharded(tiny_config):
    """LiT: the text tower is trained and split over eight devices, as the frozen one is."""
    tiny_config.text.tune = "full"
    tiny_config.mesh.fsdp, tiny_config.mesh.shard_min_size = 8, 16
    tiny_config.train.steps = 2
    return config_lib.resolve(tiny_config)


def test_each_device_holds_its_share_of_a_model_that_was_made(sharded):
    before = live()
    made = run.assemble(sharded, build.load_towers(sharded))
    held = share(made.trainable, made.frozen)
    assert 4 * held < sum(x.nbytes for x in jax.tree.leaves((made.trainable, made.frozen)))
    for was, now in zip(before, live()):
        assert now - was <= held + SLACK


def test_each_device_holds_its_share_of_a_model_that_was_loaded(tiny_run):
    before = live()
    made = restore(tiny_run, {"mesh.shard_min_size": 16})
    held = share(made.trainable, made.frozen)
    for was, now in zip(before, live()):
        assert now - was <= held + SLACK


class Here(Target):
    """The devices of this process."""

    name, kind, platform = "here", "here", "cpu"
    chip = Chip(flops=1e12, hbm=2**40, hbm_rate=1e12, link_rate=1e12, exact=1.0)
    chips = 8

    @property
    def compiler_options(self):
        return {}

    def mesh(self, fsdp=1):
        return mesh_lib.make_mesh(fsdp=fsdp)


def test_training_holds_what_its_program_takes_and_a_plan_says(sharded, tmp_path, monkeypatch):
    before, found = live(), {}
    take = loop.Loop.take

    def taken(self, span, block):
        arguments = self._state, self._frozen, self._key, block
        compiled = self._train_on.lower(*arguments, 0, 1).compile()
        found["peak"] = compiled.memory_analysis().peak_memory_in_bytes
        found["share"] = share(self._state, self._frozen, block)
        found["live"] = [now - was for was, now in zip(before, live())]
        return take(self, span, block)

    monkeypatch.setattr(loop.Loop, "take", taken)
    loop.train_and_evaluate(sharded, tmp_path)
    assert max(found["live"]) <= 1.05 * found["share"] + SLACK
    beside = max(found["live"]) - found["share"]
    made = estimate.assemble(sharded, Here())
    planned = estimate.training(sharded, Here(), Captions(mean=8, longest=8), made)
    assert planned.peak == pytest.approx(found["peak"] + max(beside, 0), rel=0.05)
