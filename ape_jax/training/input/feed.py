"""What feeds a run with blocks of batches: features on the device, or batches from the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from jax import Array

from ape_jax.data.image_loader import Skipped
from ape_jax.training.blocks import Span
from ape_jax.training.input import residency
from ape_jax.training.input.device_feed import DeviceFeed
from ape_jax.training.input.free_feed import FreeFeed
from ape_jax.training.input.host_feed import HostFeed
from ape_jax.training.input.unpaired_feed import UnpairedFeed
from ape_jax.training.run import Run


@runtime_checkable
class Feed(Protocol):
    """Makes the blocks of a run; the same bits whatever makes them.

    Attributes:
      skipped: the images that could not be read in the step.
    """

    skipped: Skipped

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Mapping[str, Array]]]:
        """The blocks with the steps from `start` to `stop` (exclusive); close it when done."""
        ...


def open_feed(run: Run) -> Feed:
    """The feed that `cache.place` asks for.

    Raises:
      UserError: where features have to live on the device and do not fit.
    """
    config, model, mesh = run.aligned.config, run.aligned.model, run.aligned.mesh
    image, text = model.image, model.text
    # Hidden states and all tokens of images are far larger than vectors; they are streamed.
    large = "hidden" in (image.frontier, text.frontier) or image.pooling == "none"
    where = residency.choose(run.dataset, config.cache.place, mesh, streams=large)
    dataset = run.dataset if where == "disk" else run.dataset.in_memory()
    host = HostFeed(dataset, image.tower, text.tower, config, mesh)
    feed: Feed = host
    if where == "device":
        feed = DeviceFeed(dataset, host.sampler, host.block_steps, mesh)
    if config.unpaired.in_steps:
        feed = UnpairedFeed(feed, run.unpaired, config, mesh)
    return feed if run.free is None else FreeFeed(feed, run.free, config, mesh)
