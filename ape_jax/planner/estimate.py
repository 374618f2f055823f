"""Compiles a run's real programs for a slice and reads off what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.features import frontier
from ape_jax.features.encode import FrozenTower
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import program, shapes, shares
from ape_jax.planner import traced as traced_lib
from ape_jax.planner.shapes import Captions
from ape_jax.planner.target import Target
from ape_jax.runs import size
from ape_jax.runs.aligned import AlignedModel
from ape_jax.storage.memory import shown
from ape_jax.training import blocks, optim, step

_LARGEST_BATCH = 2**26  # That a config takes.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one run of a program.

    Attributes:
      fits: whether it fits into a device's memory.
      reason: why not, '' if it does.
      peak: bytes a device at the worst moment, arguments included; 0 where the compiler gave up.
      arguments: bytes a device by kind, before the program starts.
      flops: of its products over all devices.
      passes: the same, an exact f32 product counted as the bf16 ones that take as long.
      traffic: bytes that a device sends, by kind of collective.
      memory_traffic: bytes that a device reads from and writes to its memory.
      largest: the largest arrays and their bytes a device; where it does not fit those of the
        traced program, as if all were shared out evenly.
      seconds: estimated.
      rows: pairs, or images or captions, of one run.
    """

    fits: bool
    reason: str = ""
    peak: int = 0
    arguments: Mapping[str, int]
    flops: float
    passes: float
    traffic: Mapping[str, float] = dataclasses.field(default_factory=dict)
    memory_traffic: float = 0.0
    largest: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0
    rows: int = 0


def assemble(config: Config, where: Target) -> AlignedModel:
    """A run's model and frozen parameters on a slice, as shapes.

    Raises:
      UserError: for a config that cannot be trained there, but for its memory.
    """
    if not config.trains:
        raise UserError(f"config.method: {config.method!r} is solved and not trained; plan 'train'")
    if config.unpaired.in_steps:
        raise UserError(
            "config.unpaired: a plan does not count unpaired images and texts; leave klot and "
            "structure out, and data.images and data.texts"
        )
    if config.classifier.weight:
        raise UserError("config.classifier.weight: a plan does not count free pairs; leave it out")
    if config.subwords.weight:
        raise UserError(
            "config.subwords.weight: a plan does not count the layer over the captions' subwords; "
            "leave it out"
        )
    mesh, how = where.mesh(config.mesh.fsdp), (config.mesh.shard_min_size, config.mesh.rules)
    mesh_lib.check_batch(config.train, mesh)
    towers = shapes.abstract_towers(config)
    model, trainable, frozen = shapes.abstract_model(config, towers)
    optim.check_rules(config.optim, trainable)
    mesh_lib.check_rules(config.mesh.rules, mesh, frozen, trainable)
    frozen = _placed(frozen, mesh_lib.frozen_shardings(frozen, mesh, *how))
    return AlignedModel(
        config=config, model=model, trainable=trainable, frozen=frozen, meta={}, mesh=mesh
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One program of a run, traced.

    Attributes:
      traced: of `jax.jit(f).trace(*arguments)`.
      arguments: their shapes, dtypes and shardings.
      kinds: those that lie in memory before it starts, by kind.
      rows: pairs, or images or captions, of one run.
    """

    traced: Any
    arguments: tuple[PyTree, ...]
    kinds: Mapping[str, PyTree]
    rows: int


def training(config: Config, where: Target, captions: Captions, made: AlignedModel) -> Cost:
    """A training step of what `assemble` gives."""
    return cost(step_program(config, captions, made), where)


def step_program(config: Config, captions: Captions, made: AlignedModel) -> Program:
    """One training step; its last arguments say from which step to which, and are 0 and 1."""
    one, optimizer = step.from_config(config, made.model, made.trainable, made.mesh)
    state = jax.eval_shape(
        lambda t: step.init_state(t, optimizer, config.optim.ema), made.trainable
    )
    how = config.mesh.shard_min_size, config.mesh.rules, tuple(made.trainable)
    state = _placed(state, mesh_lib.trained_shardings(state, made.mesh, *how))
    batch = shapes.batch(config, made.model, made.mesh, captions)
    block = _block(config.train, batch, made.mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    kinds = {
        "trained parameters": state.trainable,
        "optimizer": (state.opt_state, state.average),
        "frozen parameters": made.frozen,
        "batches": block,
    }
    run = step.make_run(one, made.mesh, jax.tree.map(lambda x: x.sharding, state))
    arguments = state, made.frozen, key, block, jnp.int32(0), jnp.int32(1)
    return Program(
        traced=run.trace(*arguments), arguments=arguments, kinds=kinds, rows=config.train.batch
    )


def extraction(
    config: Config, where: Target, captions: Captions, made: AlignedModel
) -> dict[str, Cost]:
    """A batch of images and one of captions through the frozen towers, where they are encoded."""
    programs = encoding_programs(config, captions, made)
    return {name: cost(program, where) for name, program in programs.items()}


def encoding_programs(config: Config, captions: Captions, made: AlignedModel) -> dict[str, Program]:
    """The same, traced."""
    found = {}
    readers = frontier.make_readers(config, made.model, made.frozen, made.mesh, {})
    for name, reader, wanted in (
        ("images", readers.image, config.cache.views),
        ("captions", readers.text, config.cache.text),
    ):
        if not isinstance(reader, FrozenTower) or not wanted:
            continue
        rows = mesh_lib.over_batch(made.mesh)
        batch = _raw(reader.tower.config, reader.rows, captions, rows)
        arguments = reader.params, batch
        found[name] = Program(
            traced=reader.program.trace(*arguments),
            arguments=arguments,
            kinds={"frozen parameters": reader.params, "batches": batch},
            rows=reader.rows,
        )
    return found


def _raw(config: Any, rows: int, captions: Captions, sharding: Any) -> dict[str, Any]:
    if config.kind == "image":
        made = {"image": ((rows, config.image_size, config.image_size, 3), jnp.float32)}
    else:
        padded = (rows, -(-captions.longest // 8) * 8)
        made = {"ids": (padded, jnp.int32), "mask": (padded, jnp.bool_)}
    return {k: jax.ShapeDtypeStruct(s, d, sharding=sharding) for k, (s, d) in made.items()}


def largest_batch(
    config: Config,
    where: Target,
    captions: Captions,
    say: Callable[[str], None],
) -> int:
    """The largest global batch that fits, to an eighth; 0 where not even the smallest does.

    Doubles the config's batch until a step no longer fits, or halves it until one does, and then
    halves what lies between. What is tried are multiples of `train.micro_batch`, or of the devices
    where it is 0.
    """
    unit = config.train.micro_batch or where.devices

    def fits(batch: int) -> bool:
        tried = dataclasses.replace(config, train=dataclasses.replace(config.train, batch=batch))
        found = training(tried, where, captions, assemble(tried, where)).fits
        say(f"global batch {batch:,}: {'fits' if found else 'does not fit'}")
        return found

    low, high = 0, max(config.train.batch // unit, 1) * unit
    if fits(high):
        low, high = high, 2 * high
        while high <= _LARGEST_BATCH and fits(high):
            low, high = high, 2 * high
    else:
        while high > unit and not low:
            half = max(high // 2 // unit, 1) * unit
            low, high = (half, high) if fits(half) else (0, half)
    while high - low > max(low // 8, unit):
        middle = (low + high) // 2 // unit * unit
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _placed(tree: PyTree, shardings: PyTree) -> PyTree:
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, shardings
    )


def _block(train: Any, batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """The batches that lie on the device together."""
    one_device = sum(x.size * x.dtype.itemsize for x in batch.values()) // mesh.size
    encoded = "pooled" in batch and "tokens" in batch
    steps = blocks.block_steps(train, one_device) if encoded else 1
    sharding = mesh_lib.over_steps(mesh)
    return {
        name: jax.ShapeDtypeStruct((steps, *x.shape), x.dtype, sharding=sharding)
        for name, x in batch.items()
    }


def cost(planned: Program, where: Target) -> Cost:
    """Compiles a program for a target and reads off what it costs."""
    traced, rows = planned.traced, planned.rows
    products = traced_lib.count(traced.jaxpr)
    arguments = {kind: size.device_bytes(tree) for kind, tree in planned.kinds.items()}
    passes = products.flops + (where.chip.exact - 1) * products.exact
    counted = {"arguments": arguments, "flops": products.flops, "passes": passes}

    def refused(reason: str) -> Cost:
        largest = tuple(traced_lib.largest(traced.jaxpr, where.devices))
        return Cost(fits=False, reason=reason, largest=largest, rows=rows, **counted)

    if (least := sum(arguments.values())) > where.device_hbm:  # Compiling could take for ever.
        held = f"it holds {shown(least)} a device before it starts"
        return refused(f"{held}, of {shown(where.device_hbm)}")
    try:
        lowered = traced.lower(lowering_platforms=(where.platform,))
        compiled = lowered.compile(where.compiler_options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split("\n")[0].split()).partition(": ")[2].rstrip(".")
        return refused(reason)
    # Temporaries may be left out of `temp_size_in_bytes`, and donated arguments counted twice.
    peak = compiled.memory_analysis().peak_memory_in_bytes
    text = program.read(compiled.as_text())
    traffic, moved = text.traffic(), text.moved()
    times = peak_seconds(where, passes, moved, sum(traffic.values()))
    return Cost(
        fits=not where.refusal(peak),
        reason=where.refusal(peak),
        peak=peak,
        rows=rows,
        traffic=traffic,
        memory_traffic=moved,
        largest=tuple(text.largest()),
        seconds=shares.of(where.kind).seconds(*times),
        **counted,
    )


def peak_seconds(
    where: Target, passes: float, memory_traffic: float, sent: float
) -> tuple[float, float, float]:
    """Seconds that products, memory and links would take each, at the chip's peak rates.

    Args:
      where: the devices.
      passes: see `Cost`.
      memory_traffic: likewise.
      sent: bytes that a device sends.
    """
    chip = where.chip
    return (
        passes / where.chips / chip.flops,
        memory_traffic * chip.cores / chip.hbm_rate,
        sent * chip.cores / chip.link_rate,
    )
