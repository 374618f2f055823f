"""A model that memory has no room for is one sentence, before anything of it is made."""

import ast
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.align.model import Model
from ape_jax.errors import UserError
from ape_jax.parallel import device_memory
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import estimate, shapes
from ape_jax.planner.target import Chip, Target
from ape_jax.runs import build, size
from ape_jax.training import run as run_lib

PAIRS = "pairs=features:x.npz,batch=64,steps=8"


def config(towers="image=features:512,text=features:384", **changes):
    values = {key.replace("__", "."): value for key, value in changes.items()}
    flat = config_lib.flatten(recipes.read(f"ape:{towers},{PAIRS}"))
    return config_lib.resolve({**flat, **values})


# Heads that fill any memory, and what the sentence says of each.
HUGE = {
    "a deep and wide MLP": (
        {"text__head__name": "pooled_mlp", "text__head__depth": 64, "text__head__width": 2**16},
        r"config\.text\.head: .*text\.head\.depth=64, text\.head\.width=65536; write less",
    ),
    "on tokens": (
        {"text__head__name": "token_mlp", "text__head__depth": 64, "text__head__width": 2**16},
        r"config\.text\.head: .*text\.head\.depth=64, text\.head\.width=65536",
    ),
    "on images": (
        {"image__head__name": "pooled_mlp", "image__head__depth": 64, "image__head__width": 2**16},
        r"config\.image\.head: .*largest part is image_head .*image\.head\.width=65536",
    ),
    "residual": (
        {
            "text__head__name": "residual_mlp",
            "text__head__depth": 64,
            "text__head__expansion": 64,
            "embed": 2**14,
            "image__head__name": "linear",
        },
        r"config\.text\.head: .*text\.head\.expansion=64, embed=16384",
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_head_is_one_sentence_with_both_sizes_and_its_keys(name, monkeypatch):
    changes, match = HUGE[name]
    found = config(**changes)
    towers = build.load_towers(found)
    if name == "residual":  # Which no memory of these days is sure not to hold.
        monkeypatch.setattr(device_memory, "free_bytes", lambda mesh: 10**9)
    with pytest.raises(UserError, match=match) as error:
        run_lib.assemble(found, towers)
    said = str(error.value)
    assert "\n" not in said and " free on a device" in said and "of the optimizer" in said


def test_what_is_counted_is_what_training_holds(tiny_config):
    """Trained parameters, the optimizer and the moving average, to the byte."""
    tiny_config.optim.ema = 0.9
    found = config_lib.resolve(tiny_config)
    aligned = run_lib.assemble(found, build.load_towers(found))
    kept = run_lib.step.kept(found, aligned.model, aligned.mesh, aligned.trainable)
    optimizer = run_lib.step.from_config(found, aligned.model, aligned.trainable, aligned.mesh)[1]
    state = run_lib.step.init_state(aligned.trainable, optimizer, found.optim.ema)
    held = sum(x.nbytes for x in jax.tree.leaves((state.opt_state, state.average)))
    assert size.device_bytes(kept) == held > 2 * size.device_bytes(aligned.trainable)
    sizes = size.count(aligned.trainable, aligned.frozen, kept)
    trees = aligned.trainable, aligned.frozen
    assert sizes.total == held + sum(x.nbytes for x in jax.tree.leaves(trees))


@pytest.mark.parametrize(
    ("tune", "key"), [("frozen", r"text\.head"), ("full", r"(image|text)\.tune")]
)
def test_the_key_is_that_of_the_largest_part(tiny_config, monkeypatch, tune, key):
    tiny_config.image.tune = tiny_config.text.tune = tune
    tiny_config.image.standardize = tune == "frozen"
    found = config_lib.resolve(tiny_config)
    towers = build.load_towers(found)
    monkeypatch.setattr(device_memory, "free_bytes", lambda mesh: 1000)
    with pytest.raises(UserError, match=rf"^config\.{key}: the model takes .*write") as error:
        run_lib.assemble(found, towers)
    assert "0.0 MB of memory are free" in str(error.value)


def test_nothing_is_made_of_a_model_that_does_not_fit(tiny_config, monkeypatch):
    found = config_lib.resolve(tiny_config)
    towers = build.load_towers(found)
    made, own = [], Model.init

    def init(self, seed, params):
        made.append(not isinstance(jnp.zeros(()), jax.core.Tracer))  # Not for its shapes alone.
        return own(self, seed, params)

    monkeypatch.setattr(Model, "init", init)
    monkeypatch.setattr(device_memory, "free_bytes", lambda mesh: 1000)
    with pytest.raises(UserError, match="of memory are free"):
        run_lib.assemble(found, towers)
    assert made and not any(made)  # Traced, for its shapes.
    monkeypatch.setattr(device_memory, "free_bytes", lambda mesh: None)
    run_lib.assemble(found, towers)
    assert made[-1]


def test_parameters_are_made_in_one_place():
    """A new way to make a model goes through `size.initial` as well."""
    package = pathlib.Path(ape_jax.__file__).parent
    callers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = ast.unparse(node.func.value)
                if node.func.attr == "init" and (of.endswith("model") or of == "before"):
                    callers.add(path.relative_to(package).as_posix())
    assert callers == {"runs/size.py"}


@dataclasses.dataclass(frozen=True)
class Here(Target):
    """The devices of this machine, with memory of any size."""

    hbm: int
    name: str = "here"
    kind: str = "here"
    platform = "cpu"

    @property
    def chip(self):
        return Chip(flops=1e12, hbm=self.hbm, hbm_rate=1e11, link_rate=1e10, exact=1)

    @property
    def compiler_options(self):
        return {}

    chips = 8

    def mesh(self, fsdp=1):
        return mesh_lib.make_mesh(fsdp=fsdp)


def test_a_plan_counts_the_same_and_compiles_nothing_that_cannot_fit(monkeypatch):
    captions = shapes.Captions(mean=1.0, longest=1)
    found = config(text__head__name="pooled_mlp")
    where = Here(hbm=2**34)
    cost = estimate.training(found, where, captions, estimate.assemble(found, where))
    assert cost.fits
    aligned = run_lib.assemble(found, build.load_towers(found))
    kept = run_lib.step.kept(found, aligned.model, aligned.mesh, aligned.trainable)
    sizes = size.count(aligned.trainable, aligned.frozen, kept)
    assert cost.arguments["optimizer"] == sizes.optimizer
    assert cost.arguments["trained parameters"] == sum(sizes.trained.values())
    assert cost.arguments["frozen parameters"] == sum(sizes.frozen.values())

    huge = config(text__head__name="pooled_mlp", text__head__depth=64, text__head__width=2**16)
    cost = estimate.training(huge, where, captions, estimate.assemble(huge, where))
    assert not cost.fits and "3,1" in cost.reason and "before it starts" in cost.reason
    monkeypatch.setattr(device_memory, "free_bytes", lambda mesh: where.hbm)
    with pytest.raises(UserError, match=r"the model takes 3,1\d\d\.\d GB a device"):
        run_lib.assemble(huge, build.load_towers(huge))
