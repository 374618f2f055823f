"""The layouts of towers' files, in the order in which they are tried."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ape_jax.towers.family import FAMILIES, Family, Fields, find
from ape_jax.towers.files import missing, sections, sentence, sources
from ape_jax.towers.files.peft import merge
from ape_jax.towers.layout import Found, Layout
from ape_jax.towers.open_clip import layout as open_clip_layout
from ape_jax.towers.text import big_vision as big_vision_text
from ape_jax.towers.text import family as text_family
from ape_jax.towers.text.transformer import TextConfig
from ape_jax.towers.tower import Kind, TowerConfig
from ape_jax.towers.vision import big_vision
from ape_jax.towers.vision.timm import layout as timm_layout


def found(path: Path, kind: Kind | None) -> Found:
    """The tower at a path, by the first layout that fits it.

    Args:
      path: a directory or an .npz.
      kind: which tower, of two.

    Raises:
      UserError: the files are of no layout, damaged, or of another kind.
    """
    return next(layout for layout in LAYOUTS if layout.fits(path, kind)).find(path, kind)


def _is_npz(path: Path, kind: Kind | None) -> bool:
    return not path.is_dir()


def _find_in_npz(path: Path, kind: Kind | None) -> Found:
    tensors = sources.NpzTensors(path)
    if kind == "text":
        config, tables = big_vision_text.read_config(tensors)
        return Found(
            family=FAMILIES[config.family],
            config=config,
            tables=tables,
            tensors=big_vision_text.Positions(tensors),
            prepare=partial(big_vision_text.prepare, path),
        )
    family = FAMILIES["vit"]
    return Found(
        family=family,
        config=big_vision.read_config(tensors),
        tables=big_vision.TABLES,
        tensors=tensors,
        prepare=partial(family.prepare, None),
    )


def _is_directory(path: Path, kind: Kind | None) -> bool:
    return path.is_dir()


def _find_in_directory(path: Path, kind: Kind | None) -> Found:
    missing.refuse(path)
    label = path / "config.json"
    section = sections.find(sources.read_json(label), str(label), kind)
    family, fields = find(section.config, section.label, kind, path)
    config, modules = parsed(family, fields)
    tensors = merge.open_weights(path)
    return Found(
        family=family,
        config=config,
        tables=family.tables,
        tensors=section.within(tensors),
        prepare=partial(family.prepare, path),
        excluded=section.left_out(tensors),
        modules=modules,
    )


def parsed(family: Family, fields: Fields) -> tuple[TowerConfig, sentence.Modules | None]:
    """A tower's config with what the files beside its config.json say of its pooling.

    Args:
      family: its family.
      fields: of the config.json.

    Returns:
      The config, and the modules of a sentence-transformers folder where it is one.
    """
    config = family.parse(fields)
    if fields.directory is None or not isinstance(config, TextConfig):
        return config, None
    return text_family.with_modules(config, fields.directory)


def _is_sentence(path: Path, kind: Kind | None) -> bool:
    """Whether modules.json names a tower in a folder below."""
    if sources.is_there(path / "config.json") or missing.is_clip_of_sentences(path):
        return False
    return sources.is_there(path / sentence.MODULES)


def _find_in_sentence(path: Path, kind: Kind | None) -> Found:
    return _find_in_directory(sentence.read(path).transformer, kind)


LAYOUTS = (
    Layout(name="big_vision's .npz", fits=_is_npz, find=_find_in_npz),
    open_clip_layout.LAYOUT,
    timm_layout.LAYOUT,
    Layout(name="sentence-transformers' folder", fits=_is_sentence, find=_find_in_sentence),
    Layout(name="transformers' directory", fits=_is_directory, find=_find_in_directory),
)
"""The first that fits is read; the last fits every directory, and says what it lacks."""
