"""The TFDS builder of the icons; imported only when they are prepared, for it imports TFDS.

Written as array_record and read without TensorFlow. TFDS orders the records by a hash of their key,
so a slice such as `train[:1000]` is a random sample, the same on every machine.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from ape_jax.demo import cache
from ape_jax.demo.icons.plan import Icon
from ape_jax.demo.icons.render import SIZE

_DESCRIPTION = """\
Icons of many makers with their names as captions, split by concept and by maker. `metadata` has
every set's title, maker and licence, and counts what was left out and why.
"""
_LICENCE = (
    "Each set has its own, which every record names and `metadata` lists. From the npm package "
    "@iconify/json 2.2.535, rendered from SVG to PNG."
)


class ApeJaxIcons(tfds.core.GeneratorBasedBuilder):
    """Icons with captions, in `train`, `validation`, `test` and `test_sets`."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS downloads nothing here; looking for its list of checksums would need a package more.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        *,
        splits: Mapping[str, list[tuple[Icon, bytes]]],
        metadata: Mapping[str, Any],
        **kwargs: object,
    ):
        """Takes each split's icons with their PNG, what to say of the whole, TFDS's arguments."""
        self._splits = splits
        self._metadata = metadata
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        names = ("id", "caption", "concept", "name", "set", "title", "author", "licence")
        image = tfds.features.Image(shape=(SIZE, SIZE, 4), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            homepage="https://iconify.design",
            features=tfds.features.FeaturesDict(
                {"image": image, **{name: text() for name in (*names, "category")}}
            ),
            license=_LICENCE,
            metadata=tfds.core.MetadataDict(self._metadata),
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(icons) for split, icons in self._splits.items()}

    def _generate_examples(self, icons: list[tuple[Icon, bytes]]) -> Iterator[tuple[str, dict]]:
        for icon, png in icons:
            yield (
                icon.id,
                {
                    "image": png,
                    "id": icon.id,
                    "caption": icon.caption,
                    "concept": icon.concept,
                    "name": icon.name,
                    "set": icon.set.key,
                    "title": icon.set.title,
                    "author": icon.set.maker,
                    "licence": icon.set.licence,
                    "category": icon.set.category,
                },
            )


def prepare(
    splits: Mapping[str, list[tuple[Icon, bytes]]], metadata: Mapping[str, Any], directory: Path
) -> None:
    """Writes the data set below `directory`, and says how many icons each split has."""
    started = time.monotonic()
    cache.say("icons: writing")
    tfds.disable_progress_bar()
    builder = ApeJaxIcons(splits=splits, metadata=metadata, data_dir=str(directory))
    config = tfds.download.DownloadConfig(compute_stats="skip")
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints there, even then
        builder.download_and_prepare(download_config=config)
    sizes = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    cache.say(f"icons: {sizes} in {time.monotonic() - started:.1f} s")
