"""Training in one call: `ape_jax.fit(image=..., text=..., pairs=...)`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.api.aligner import Aligner
from ape_jax.config import Config, schema, synonyms
from ape_jax.data import in_memory
from ape_jax.data.columns import CAPTION_NAMES, IMAGE_NAMES, find_column
from ape_jax.data.options import BY_SCRIPT, BY_SOURCE, OnError
from ape_jax.errors import UserError, path_text
from ape_jax.parallel import programs
from ape_jax.runs.directory import workdir as workdir_lib
from ape_jax.runs.restore import restore
from ape_jax.training import loop

_DATA = "data"
"""The folder in the work directory that pairs in memory are written to."""


def fit(
    *,
    image: str,
    text: str,
    pairs: Any,
    recipe: str = "few_pairs",
    eval: Any = None,
    workdir: str | os.PathLike[str] | None = None,
    **keys: Any,
) -> Aligner:
    """Aligns two towers on pairs of images and captions.

    The same call again finds the features that are cached, and with a `workdir` resumes a run that
    was interrupted, or returns one that is finished. Progress goes to stderr.

    Example:
      model = ape_jax.fit(
          image="hf:facebook/dinov2-small",
          text="hf:sentence-transformers/all-MiniLM-L6-v2",
          pairs=[("cat.png", "a cat"), (pil_image, ["a dog", "ein Hund"])],
      )
      model.classify(["new.png"], ["cat", "dog"])
      model.save("runs/mine")

    Args:
      image: the image tower, as `--config.image.tower` takes it.
      text: the text tower.
      pairs: a list of (image, caption or captions), a pandas DataFrame, a Hugging Face `Dataset`,
        an Arrow table or a dictionary of columns; or what `--config.data.pairs` takes. An image is
        a path, a PIL image, encoded bytes or a uint8 array [H, W, 3 or 4].
      recipe: the name of a recipe, or the path of a config file.
      eval: pairs to evaluate on, or several by name, `{"test": ...}`.
      workdir: the directory of the run; without one it is temporary, until `model.save(DIR)`.
      **keys: arguments of the recipe (`steps=200`), and config keys with underscores in the place
        of their dots (`optim_lr=1e-3` is `optim.lr`).

    Returns:
      The model.

    Raises:
      UserError: for anything that the user can put right, before anything is compiled where it can
        be known by then.
    """
    programs.keep()
    arguments, settings = _split(keys)
    temporary = None
    if workdir is None:
        temporary = tempfile.TemporaryDirectory(prefix="ape_jax-")
        workdir = temporary.name
    path = workdir_lib.locate(path_text(workdir, "fit: workdir"))
    if not isinstance(recipe, str | os.PathLike):
        raise UserError(f"fit: recipe: expected a name such as 'few_pairs', found {recipe!r}")
    try:
        folder = path / _DATA
        on_error = "skip" if settings.get("data.on_error") == "skip" else "error"
        language = settings.get("data.language", arguments.get("language", ""))
        spoken = _named(language, "data.language", (BY_SCRIPT, ""))
        domains = _named(settings.get("data.domain", ""), "data.domain", (BY_SOURCE, ""))
        specs = _specs(eval, folder, on_error, spoken)
        arguments |= {"image": _tower(image, "image"), "text": _tower(text, "text")}
        keep = {**spoken, **domains}
        arguments["pairs"] = in_memory.as_spec(
            pairs, folder, key="pairs", on_error=on_error, keep=keep
        )
        config = _config(os.fspath(recipe), arguments, {**settings, "data.eval": specs})
        with _quiet():
            loop.train_and_evaluate(config, path)
            model = Aligner(restore(path), temporary)
    except BaseException:
        if temporary is not None:
            temporary.cleanup()
        raise
    if temporary is not None:
        print("the model is in a temporary folder; model.save(DIR) keeps it", file=sys.stderr)
    return model


def _split(keys: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe's arguments, and settings by dotted key."""
    by_name = underscored()
    dotted = next((key for key in keys if "." in key), None)
    if dotted is not None:
        raise UserError(f"fit: {dotted!r}: write config keys with underscores, {_name(dotted)}=...")
    settings = {by_name[key]: value for key, value in keys.items() if key in by_name}
    return {key: value for key, value in keys.items() if key not in by_name}, settings


def underscored() -> dict[str, str]:
    """The config keys as `fit` takes them, `{"optim_lr": "optim.lr", ...}`.

    Example:
      >>> underscored()["text_head_depth"]
      'text.head.depth'
    """
    taken = ("image.tower", "text.tower", "data.pairs", "data.eval")
    return {_name(key): key for key in schema.keys(Config) if key not in taken}


def _name(key: str) -> str:
    return key.replace(".", "_")


def _tower(spec: Any, name: str) -> str:
    """A tower as recipes take it; an empty text is left to them."""
    return spec if spec == "" else path_text(spec, f"fit: {name}")


def _named(column: Any, key: str, others: tuple[str, ...]) -> dict[str, str]:
    """The column that a config key names, and the key; nothing where its value is no column."""
    return {column: key} if isinstance(column, str) and column not in others else {}


def _specs(eval: Any, folder: Path, on_error: OnError, keep: Mapping[str, str]) -> dict[str, str]:
    if eval is None:
        return {}
    if not _is_named(eval):
        eval = {"eval": eval}
    specs = {}
    for name, value in eval.items():
        if not isinstance(name, str) or not name:
            raise UserError(f"eval: expected names of sets as text, found {name!r}")
        key = "eval" if name == "eval" else f"eval[{name!r}]"
        specs[name] = in_memory.as_spec(value, folder, key=key, on_error=on_error, keep=keep)
    return specs


def _is_named(eval: Any) -> bool:
    """Whether it is several sets by name, and not a dictionary of columns."""
    if not isinstance(eval, Mapping):
        return False
    columns = (find_column(list(eval), names) for names in (IMAGE_NAMES, CAPTION_NAMES))
    return None in columns


def _config(recipe: str, arguments: Mapping[str, Any], settings: Mapping[str, Any]) -> Config:
    try:
        config = recipes.read(recipe, "fit: recipe", arguments)
    except config_lib.UnknownArgument as error:
        known = [name for name in error.known if name not in ("pairs", "eval", "runlocal")]
        names = underscored()
        meant = synonyms.key_of(error.name, names.values())
        spelt = next((name for name, key in names.items() if key == meant), None)
        near = schema.nearest(error.name, [*known, *names])
        hint = f"; did you mean {spelt!r}?" if spelt else near
        raise UserError(
            f"fit: no such key {error.name!r}{hint}; {recipe!r} takes {', '.join(known)}, and "
            "config keys are written with underscores, optim_lr=1e-3"
        ) from None
    return config_lib.resolve({**config_lib.flatten(config), **settings})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the pages that Orbax logs of every checkpoint; what is wrong is raised as well."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)
