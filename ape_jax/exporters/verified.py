"""Writes a run in a format and verifies it with inputs of the run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.config.outside import is_precomputed, is_torch
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError, path_text
from ape_jax.exporters import verify
from ape_jax.exporters.formats import EXPORTS, ExportFormat
from ape_jax.exporters.publish import facts as card_facts
from ape_jax.runs import widths
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.directory import workdir
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.languages import is_means, with_means
from ape_jax.runs.restore import restore
from ape_jax.storage import atomic, checksums, disk
from ape_jax.towers import aligned


def export(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str,
    inputs: str = "",
    facts: card_facts.Facts = card_facts.NOTHING,
    dim: int | None = None,
    languages: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Writes a run as a new directory, which is removed again if it does not give the same.

    Args:
      source: the work directory of a finished run, or a finished model.
      out: the directory to write; it must not exist.
      format: a name of `EXPORTS`.
      inputs: pairs to verify it with; '' takes the run's data.eval, or data.pairs.
      facts: what the model card says beside what is known of the run.
      dim: width of the embeddings that it gives, see `widths.settings`; None for the run's own.
        Figures of the run are of that own width and are left out of the card of another.
      languages: means of languages that are added to those of the run, by name.

    Returns:
      The absolute path of `out`.

    Raises:
      UserError: for what the format cannot express, a module that is not installed, a directory
        that exists, or an export whose embeddings are not those of the run.
    """
    _check_arguments(inputs, facts, languages)
    facts.check()
    source = path_text(source, "--workdir")
    finished = aligned.is_model(source)
    path = None if finished else workdir.locate(source)
    target, target_path = _target(format), atomic.check_new(path_text(out, "--out"), "--out")
    verify.require(target.name, target.needs)
    if finished:
        _check_finished(source, target)
    config = Config() if path is None else workdir.read_config(path)
    _check_torch(config, target)
    pairs = _pairs(config, inputs)  # They fail in no time, a model takes seconds to load.
    summary: dict[str, Any] = {} if path is None else workdir.finished(path, config)
    cut = widths.settings(dim, "--dim")
    exact = with_means(restore(source, {**verify.EXACT, **cut}), languages or {})
    if exact.model.languages is not None:
        _check_languages(target)
    encoder = Encoder(exact)
    # Written is the config that the run was trained with.
    if not finished and cut:
        summary = _without_figures(summary, config.eval.dim, exact.model.dim)
        config = config_lib.resolve({**config_lib.flatten(config), "eval.dim": exact.model.dim})
    run = exact if finished else dataclasses.replace(exact, config=config, summary=summary)
    if config.data.on_error == "skip":
        pairs = encoder.leave_out_unreadable(pairs, "the inputs")
    chosen = verify.choose(pairs, run.model.text.tower.prepare.max_length)
    with disk.write_errors(f"--out: {target_path}"), atomic.directory(target_path) as partial:
        target.write(run, partial)
        if (readme := partial / "README.md").exists():
            card_facts.complete(readme, facts, target_path.name)
        checksums.write(partial)
        _verify(target, run, partial, encoder, chosen)
    return target_path


def _check_arguments(inputs: Any, facts: Any, languages: Any) -> None:
    """Raises UserError for an argument of another type."""
    if not isinstance(facts, card_facts.Facts):
        raise UserError(f"facts: expected Facts, found {type(facts).__name__}")
    if not isinstance(inputs, str):
        raise UserError(f"inputs: expected pairs such as 'pairs.jsonl', found {inputs!r}")
    if not is_means(languages or {}):
        raise UserError(
            f"languages: expected a vector by the name of each language, found {languages!r}"
        )


def _check_finished(source: str, target: ExportFormat) -> None:
    """Raises UserError for a format that takes no finished model."""
    if target.takes_finished:
        return
    *others, last = (name for name, made in EXPORTS.items() if made.takes_finished)
    raise UserError(
        f"--format: {source} is a finished model, which ape_jax.load takes as it is; write "
        f"{', '.join(others)} or {last}"
    )


def _check_languages(target: ExportFormat) -> None:
    """Raises UserError for a format that cannot take the means of languages off texts."""
    if target.takes_languages:
        return
    those = " or ".join(name for name, made in EXPORTS.items() if made.takes_languages)
    raise UserError(
        f"--format: {target.name!r} has no place for the means of languages that the model "
        f"takes off its texts (data.language); write {those}"
    )


def _verify(
    target: ExportFormat,
    run: AlignedModel,
    directory: Path,
    encoder: Encoder,
    chosen: verify.Inputs,
) -> None:
    """Raises UserError where the written model gives other embeddings than the run."""
    written = target.encode(run, directory, chosen)
    ours = verify.ours(encoder, chosen)
    for name, theirs in written.items():
        verify.compare(ours, theirs, name)


def _without_figures(summary: Mapping[str, Any], before: int, after: int) -> dict[str, Any]:
    """The summary of a run at another width: what was measured at its own does not hold there."""
    if before == after:
        return dict(summary)
    measured = ("eval/", "chance/")
    return {key: value for key, value in summary.items() if not key.startswith(measured)}


def _target(name: str) -> ExportFormat:
    if not isinstance(name, str) or name not in EXPORTS:
        formats = "; ".join(f"{name} ({made.title})" for name, made in EXPORTS.items())
        raise UserError(f"--format: expected one of {formats}; found {name!r}")
    return EXPORTS[name]


def _check_torch(config: Config, target: ExportFormat) -> None:
    """Raises UserError for a tower that no program without its own library has."""
    for side in ("image", "text"):
        tower = config.side(side).tower
        if is_torch(tower) and not target.takes_torch:
            raise UserError(
                f"--format: {tower!r} is run by its own library, which {target.name!r} does not "
                "bring, and a head alone is no model; write jax"
            )


def _pairs(config: Config, inputs: str) -> Pairs:
    """What the export is checked with."""
    for side in ("image", "text"):
        tower = config.side(side).tower
        if is_precomputed(tower):
            raise UserError(
                f"config.{side}.tower: {tower!r} stands for vectors that are made "
                f"elsewhere, so there is no model from {side}s on to export"
            )
    reading = Reading.of(config.data)
    if inputs:
        return open_pairs(inputs, key="--inputs", reading=dataclasses.replace(reading, columns={}))
    if not config.data.pairs:
        raise UserError("--inputs: a finished model brings no pairs; name some to check it with")
    specs = {f"data.eval.{name}": spec for name, spec in config.data.eval.items()}
    key, spec = next(iter({**specs, "data.pairs": config.data.pairs}.items()))
    return open_pairs(spec, key=key, reading=reading)
