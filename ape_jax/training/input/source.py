"""Where the blocks of a run come from: features on the device, or batches from the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from jax.sharding import Mesh

from ape_jax.data.pipeline import Skipped
from ape_jax.training import plan
from ape_jax.training.input import place
from ape_jax.training.input.host import TrainInput
from ape_jax.training.input.resident import Resident
from ape_jax.training.plan import Span
from ape_jax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Source:
    """The blocks of a run.

    Attributes:
      host: makes them on the host.
      mesh: the devices.
      resident: makes them on the device, None where features do not live there.
    """

    host: TrainInput
    mesh: Mesh
    resident: Resident | None

    @property
    def skipped(self) -> Skipped:
        """The images that could not be read in the step."""
        return self.host.skipped

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Any]]:
        """The blocks with the steps from `start` to `stop` (exclusive); close it when done."""
        if self.resident is not None:
            return self.resident.blocks(start, stop)
        return self.host.blocks(start, stop, self.mesh)


def open_source(run: Run) -> Source:
    """The source that `cache.place` asks for.

    Raises:
      UserError: where features have to live on the device and do not fit.
    """
    config, sides = run.config, (run.model.image, run.model.text)
    parts = plan.parts(config.train)
    groups = run.mesh.size * parts
    host = TrainInput(run.dataset, *(side.tower for side in sides), config, groups)
    # Hidden states and all tokens of images are far larger than vectors; they are streamed.
    large = any(side.frontier == "hidden" for side in sides) or run.model.image.pooling == "none"
    if large or not place.on_device(run.dataset, config.cache.place, config.train.batch, run.mesh):
        return Source(host, run.mesh, None)
    resident = Resident(
        run.dataset,
        config.seed,
        config.train.batch,
        host.block_steps,
        host.floor,
        run.mesh,
        config.loss.positives,
        parts,
    )
    return Source(host, run.mesh, resident)
