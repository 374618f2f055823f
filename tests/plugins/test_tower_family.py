"""A text family from outside the package, by one file and one registration."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

import ape_jax
from ape_jax import config as config_lib
from ape_jax import export, towers
from ape_jax.align.tuning import selection
from ape_jax.errors import UserError
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import estimate
from ape_jax.planner.shapes import Captions
from ape_jax.planner.target import Chip, Target
from ape_jax.terminal import command
from ape_jax.towers.family import FAMILIES
from ape_jax.training import loop
from tests.plugins import gated_text

SIZES = {"vocabulary": 18, "positions": 16, "width": 32, "depth": 2}


@contextlib.contextmanager
def registered(family):
    FAMILIES.register(family)
    yield
    FAMILIES.unregister(family.name)


@pytest.fixture
def gated():
    with registered(gated_text.GATED):
        yield


@pytest.fixture(scope="module")
def directory(tiny, tmp_path_factory):
    """A tower of the family, as a user has it on disk."""
    path = tmp_path_factory.mktemp("gated")
    (path / "config.json").write_text(json.dumps({"model_type": "gated-text", **SIZES}))
    rng, width = np.random.default_rng(0), SIZES["width"]
    shapes = {"token": (18, width), "position": (16, width)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    for i in range(SIZES["depth"]):
        for name in ("norm.weight", "norm.bias", "mix.bias", "gate"):
            shapes[f"layer.{i}.{name}"] = (width,)
        shapes[f"layer.{i}.mix.weight"] = (width, width)
    tensors = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    save_file(tensors, path / "model.safetensors")
    shutil.copy(tiny / "text" / "tokenizer.json", path)
    return path


@pytest.fixture
def config(new_tiny_config, directory):
    made = new_tiny_config()
    made.text.tower = str(directory)
    made.text.head.depth, made.cache.dir = 1, "none"
    made.train.steps = 3
    return made


def test_a_tower_of_it_loads_and_encodes(gated, directory):
    tower = towers.load(str(directory), dtype="float32")
    out = tower(tower.prepare(["a red square", "a bar"]))
    assert out.pooled.shape == (2, 32) and np.isfinite(out.pooled).all()
    assert not np.array_equal(out.tokens, tower(tower.prepare(["a red square", "a bar"]), 1).tokens)


@pytest.mark.parametrize("tune", ["frozen", "layernorm+lora+adapter"])
def test_it_trains_evaluates_restores_and_says_why_it_is_not_exported(
    gated, config, tmp_path, capsys, monkeypatch, tune
):
    monkeypatch.setattr(loop.flags, "is_verbose", lambda: True)
    config.text.tune = tune
    if "lora" in tune:
        config.peft.lora_targets = ".*/mix"
    loop.train_and_evaluate(config_lib.resolve(config), tmp_path / "run")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert "eval/train/i2t_r1" in summary
    assert "|               gate |" in capsys.readouterr().err  # The parameter table.

    model = ape_jax.load(tmp_path / "run")
    assert np.isfinite(model.encode_text(["a red square"])).all()
    trained = {s.group: s.trained for s in model.shares() if s.side == "text"}
    assert trained.pop("gate") == 0
    assert (trained["norm scale"] == 3 * 32) is (tune != "frozen")
    assert (trained.get("LoRA", 0) > 0) is (trained.get("adapter", 0) > 0) is (tune != "frozen")

    with pytest.raises(SystemExit):
        flags = [f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", "--inputs="]
        command.run(export.main, ["ape_jax", "--format=torch", *flags])
    error = capsys.readouterr().err
    assert "the gated tower has no class in transformers; write --format jax" in error


class Host(Target):
    """This machine, as something to plan for."""

    name, kind, platform, chips, compiler_options = "host", "host", "cpu", 8, {}
    chip = Chip(flops=1e12, hbm=2**30, hbm_rate=1e10, link_rate=1e9, exact=1.0)

    def mesh(self, fsdp=1):
        return mesh_lib.make_mesh()


def test_its_step_is_planned(gated, config):
    config = config_lib.resolve(config)
    made = estimate.assemble(config, Host())
    cost = estimate.training(config, Host(), Captions(mean=6, longest=8), made)
    assert cost.fits and cost.rows == 16 and cost.flops > 0


@pytest.mark.parametrize(
    ("tune", "changes", "words"),
    [
        ("layernorm", {"groups": ()}, "'blocks/gate' is in none"),
        ("adapter", {"adapters": ()}, "names no layers of its blocks"),
        ("adapter", {"adapters": ("norm2",)}, "names no layers of its blocks"),
        ("lora", {"groups": ()}, "matches no dense layer"),
    ],
)
def test_a_mode_that_the_family_says_too_little_for_is_refused(config, tune, changes, words):
    config.text.tune = tune
    with registered(gated_text.declare(**changes)), pytest.raises(UserError, match=words):
        estimate.assemble(config_lib.resolve(config), Host())


def test_a_parameter_without_a_group_is_trained_and_counted_under_its_own_name(config):
    config.text.tune = "full"
    with registered(gated_text.declare(groups=())):
        made = estimate.assemble(config_lib.resolve(config), Host())
        shares = selection.shares(made.trainable, made.frozen)
    trained = {s.group: s.trained for s in shares if s.side == "text"}
    assert trained["blocks/gate"] == 2 * 32 and trained["blocks/mix/kernel"] == 2 * 32 * 32
