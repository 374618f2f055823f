"""Unpaired images and texts of a run: opened, checked, and the teacher for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from ape_jax.align.closed_form import Solution
from ape_jax.align.model import Model
from ape_jax.align.unpaired import TEACHER
from ape_jax.config import Config
from ape_jax.data import unpaired
from ape_jax.data.options import Reading
from ape_jax.errors import UserError
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.runs.aligned import AlignedModel


def open_sources(config: Config) -> dict[str, Any]:
    """The unpaired `images` and `texts` that a config names.

    Raises:
      UserError: for what cannot be read, or fewer of them than a step takes.
    """
    reading, found = Reading.of(config.data), {}
    columns = {role: names for role, names in reading.columns.items() if role != "language"}
    reading = dataclasses.replace(reading, columns=columns)
    if spec := config.data.images:
        found["images"] = unpaired.open_images(spec, key="data.images", reading=reading)
    if spec := config.data.texts:
        found["texts"] = unpaired.open_texts(spec, key="data.texts", reading=reading)
    for name, source in found.items():
        if config.unpaired.in_steps and len(source) < config.unpaired.batch:
            raise UserError(
                f"config.unpaired.batch: {config.unpaired.batch} is more than the {len(source)} "
                f"{name} of data.{name}; write at most that"
            )
    return found


def with_teacher(
    aligned: AlignedModel, towers: build.Towers, solution: Solution | None
) -> tuple[AlignedModel, Model]:
    """Adds the closed form that training starts from as a model that stays as it is.

    Args:
      aligned: the model, its heads solved.
      towers: its towers.
      solution: what was solved; None where the teacher will be restored, with the heads.

    Returns:
      The model with the teacher's heads in `frozen`, and the teacher without weights.
    """
    config, form = aligned.config, aligned.config.closed_form
    assert form is not None
    alone = config.replace({"method": form.name, "start.method": "none"})
    teacher = build.make_model(alone, towers, aligned.solved)
    heads: Mapping[str, PyTree] = teacher.init_heads(config.seed)
    if solution is not None:
        heads = {**heads, **solution.heads}
    how = config.mesh.shard_min_size, config.mesh.rules
    placed = mesh_lib.place_frozen(heads, aligned.mesh, *how)
    frozen = {**aligned.frozen, TEACHER: placed}
    return dataclasses.replace(aligned, frozen=frozen), teacher
