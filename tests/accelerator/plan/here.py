"""The planner's programs on the device that is here: compiled for it, and run on random arrays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.config import Config, automatic
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import estimate
from ape_jax.planner import traced as traced_lib
from ape_jax.planner.estimate import Program
from ape_jax.planner.shapes import Captions
from ape_jax.planner.target import Chip, Target
from tests.accelerator.fast import shapes
from tests.accelerator.settings import Settings

# Names of `planner.known`, whose sizes the planner has too.
IMAGE, TEXT = "hf:google/vit-base-patch16-224", "hf:google-bert/bert-base-uncased"
CAPTIONS, PAIRS = Captions(mean=13.0, longest=25), 500_000


class Here(Target):
    """This process's first device."""

    name, kind, platform = "here", "here", "here"

    @property
    def chip(self) -> Chip:
        """Unknown."""
        raise NotImplementedError

    @property
    def chips(self) -> int:
        """One."""
        return 1

    @property
    def compiler_options(self) -> Mapping[str, Any]:
        """The usual ones."""
        return {}

    def mesh(self, fsdp: int = 1) -> Mesh:
        """A mesh of it."""
        return mesh_lib.make_mesh(1)


@dataclasses.dataclass
class Running:
    """A program with what it runs on.

    Attributes:
      compiled: for this device.
      held: its arguments; those that it takes the place of are renewed.
      flops: of its products.
      rows: of one call.
    """

    compiled: Any
    held: list[Any]
    flops: float
    rows: int
    is_step: bool

    def __call__(self) -> Any:
        """One call."""
        out = self.compiled(*self.held)
        if self.is_step:  # The state is donated.
            self.held[0] = out[0]
        return out[1] if self.is_step else out

    @property
    def peak(self) -> int:
        """Bytes at the worst moment, by the compiler."""
        return self.compiled.memory_analysis().peak_memory_in_bytes


def config(settings: Settings, recipe: str, **keys: Any) -> Config:
    """A recipe on ViT-B/16 and BERT-base, or on tiny towers of these families."""
    image, text = IMAGE, TEXT
    if settings.small:
        image = _folder(settings, "image", shapes.vision(settings, "ViT-B/16"))
        text = _folder(settings, "text", shapes.text(settings, "BERT-base"))
    made = recipes.read(f"{recipe}:image={image},text={text},pairs=x,batch=8,steps=1000")
    config_lib.override(made, {key: str(value) for key, value in keys.items()})
    found = config_lib.resolve(made)
    if not automatic.is_open(found):
        return found
    values, _ = automatic.settled(found, PAIRS)
    return config_lib.resolve({**config_lib.flatten(found), **values})


def _folder(settings: Settings, name: str, described: Mapping[str, Any]) -> str:
    path = settings.out / "configs" / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(dict(described)))
    return str(path)


def step(config: Config) -> Callable[[], Running]:
    """Makes a training step of a config here."""
    made = estimate.assemble(config, Here())
    return lambda: running(estimate.step_program(config, CAPTIONS, made), is_step=True)


def encoders(config: Config) -> dict[str, Callable[[], Running]]:
    """The same of the batches of images and of captions that are encoded once."""
    made = estimate.assemble(config, Here())
    # On a processor a tower narrows its kernels before it is traced, for which they must be there.
    (frozen,) = arrays((made.frozen,))
    made = dataclasses.replace(made, frozen=frozen)
    programs = estimate.encoding_programs(config, CAPTIONS, made)
    return {name: lambda p=program: running(p) for name, program in programs.items()}


def running(program: Program, *, is_step: bool = False) -> Running:
    """Compiles a program and makes what it runs on."""
    return Running(
        compiled=program.traced.lower().compile(),
        held=arrays(program.arguments),
        flops=traced_lib.count(program.traced.jaxpr).flops,
        rows=program.rows,
        is_step=is_step,
    )


def arrays(arguments: tuple[PyTree, ...]) -> list[PyTree]:
    """Random parameters, optimizers at their start, and batches without padding."""
    leaves, tree = jax.tree.flatten_with_path(list(arguments))
    return jax.tree.unflatten(tree, [_array(jax.tree_util.keystr(p), x) for p, x in leaves])


def _array(path: str, x: Any) -> jax.Array:
    if isinstance(x, jax.Array):
        return x
    if path.endswith("['mask']"):
        made = jnp.ones(x.shape, x.dtype)
    elif path.endswith("['index']"):
        made = jnp.broadcast_to(jnp.arange(x.shape[-1], dtype=x.dtype), x.shape)
    elif path.endswith("['lengths']"):
        made = jnp.full(x.shape, round(CAPTIONS.mean), x.dtype)
    elif "opt_state" in path:
        made = jnp.zeros(x.shape, x.dtype)
    else:
        return shapes.random({path: x})[path]
    return jax.device_put(made, getattr(x, "sharding", None))
