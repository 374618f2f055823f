"""Exporting a run from the command line: written, then verified, or removed."""

from __future__ import annotations

import dataclasses

from ape_jax.config import Config
from ape_jax.config.precomputed import is_precomputed
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.exporters import verify
from ape_jax.exporters.formats import EXPORTS, ExportFormat
from ape_jax.runs import workdir
from ape_jax.runs.aligner import Aligner
from ape_jax.runs.restore import restore
from ape_jax.storage import atomic, disk
from ape_jax.towers import aligned


def export(source: str, to: str, format_name: str, inputs: str) -> None:
    """Writes a run or a model for use elsewhere, and verifies what it wrote.

    Args:
      source: directory of a run or of a model.
      to: directory to write, which must not exist.
      format_name: a name of `EXPORTS`.
      inputs: pairs to check the result with, or "" for the run's own.

    Raises:
      UserError: for what cannot be exported, or differs from the run.
    """
    finished = aligned.is_model(source)
    path = None if finished else workdir.locate(source)
    target, out = _target(format_name), atomic.check_new(to, "--out")
    verify.require(target.name, target.needs)
    if finished and not target.takes_finished:
        *others, last = (name for name, made in EXPORTS.items() if made.takes_finished)
        raise UserError(
            f"--format: {source} is a finished model, which ape_jax.load takes as it is; write "
            f"{', '.join(others)} or {last}"
        )
    config = Config() if path is None else workdir.read_config(path)
    pairs = _pairs(config, inputs)  # They fail in no time, a model takes seconds to load.
    summary = {} if path is None else workdir.finished(path, config)
    exact = restore(source, verify.EXACT)
    aligner = Aligner(exact)
    # Written is the config that the run was trained with.
    run = exact if finished else dataclasses.replace(exact, config=config, summary=summary)
    if config.data.on_error == "skip":
        pairs = aligner.leave_out_unreadable(pairs, "the inputs")
    chosen = verify.choose(pairs, run.model.text.tower.prepare.max_length)
    with disk.write_errors(f"--out: {out}"), atomic.directory(out) as partial:
        target.write(run, partial)
        written = target.encode(run, partial, chosen)
        ours = verify.ours(aligner, chosen)
        for name, theirs in written.items():
            verify.compare(ours, theirs, name)
    print(f"{out} holds the run for {target.name}")


def _target(name: str) -> ExportFormat:
    if name not in EXPORTS:
        formats = "; ".join(f"{name} ({made.title})" for name, made in EXPORTS.items())
        raise UserError(f"--format: expected one of {formats}; found {name!r}")
    return EXPORTS[name]


def _pairs(config: Config, inputs: str) -> Pairs:
    """What the export is checked with."""
    for side in ("image", "text"):
        tower = config.side(side).tower
        if is_precomputed(tower):
            raise UserError(
                f"config.{side}.tower: {tower!r} stands for vectors that are made "
                f"elsewhere, so there is no model from {side}s on to export"
            )
    if inputs:
        return open_pairs(inputs, key="--inputs")
    if not config.data.pairs:
        raise UserError("--inputs: a finished model brings no pairs; name some to check it with")
    specs = {f"data.eval.{name}": spec for name, spec in config.data.eval.items()}
    key, spec = next(iter({**specs, "data.pairs": config.data.pairs}.items()))
    return open_pairs(spec, key=key)
