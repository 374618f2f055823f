"""Takes a run elsewhere: `python -m ape_jax.export --workdir DIR --out OUT --format torch`."""

from __future__ import annotations

import dataclasses

from absl import flags

from ape_jax.config import Config
from ape_jax.config.precomputed import is_precomputed
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.exporters import verify
from ape_jax.exporters.formats import EXPORTS
from ape_jax.runs import workdir
from ape_jax.runs.aligner import Aligner
from ape_jax.runs.restore import restore
from ape_jax.storage import atomic, disk
from ape_jax.terminal import command
from ape_jax.towers import aligned

_OUT = flags.DEFINE_string("out", "", "The directory to write; it must not exist.")
_FORMAT = flags.DEFINE_enum(
    "format",
    "torch",
    list(EXPORTS),
    "; ".join(f"{name}: {made.title}" for name, made in EXPORTS.items()),
)
_INPUTS = flags.DEFINE_string(
    "inputs", "", "Pairs to check the result with; '' takes the run's data.eval, or data.pairs."
)


def main() -> None:
    """Writes OUT and verifies it with inputs of the run; an OUT that fails is removed."""
    source = command.workdir()  # Named before anything is opened.
    finished = aligned.is_model(source)
    path = None if finished else workdir.locate(source)
    command.refuse_config()
    out, target = atomic.check_new(_OUT.value, "--out"), EXPORTS[_FORMAT.value]
    verify.require(target.name, target.needs)
    if finished and not target.takes_finished:
        *others, last = (name for name, made in EXPORTS.items() if made.takes_finished)
        raise UserError(
            f"--format: {source} is a finished model, which ape_jax.load takes as it is; write "
            f"{', '.join(others)} or {last}"
        )
    config = Config() if path is None else workdir.read_config(path)
    pairs = _pairs(config)  # They fail in no time, a model takes seconds to load.
    summary = {} if path is None else workdir.finished(path, config)
    exact = restore(source, verify.EXACT)
    aligner = Aligner(exact)
    # Written is the config that the run was trained with.
    run = exact if finished else dataclasses.replace(exact, config=config, summary=summary)
    if config.data.on_error == "skip":
        pairs = aligner.leave_out_unreadable(pairs, "the inputs")
    inputs = verify.choose(pairs, run.model.text.tower.prepare.max_length)
    with disk.write_errors(f"--out: {out}"), atomic.directory(out) as partial:
        target.write(run, partial)
        written = target.encode(run, partial, inputs)
        ours = verify.ours(aligner, inputs)
        for name, theirs in written.items():
            verify.compare(ours, theirs, name)
    print(f"{out} holds the run for {target.name}")


def _pairs(config: Config) -> Pairs:
    """What the export is checked with."""
    for side in ("image", "text"):
        tower = config.side(side).tower
        if is_precomputed(tower):
            raise UserError(
                f"config.{side}.tower: {tower!r} stands for vectors that are made "
                f"elsewhere, so there is no model from {side}s on to export"
            )
    if _INPUTS.value:
        return open_pairs(_INPUTS.value, key="--inputs")
    if not config.data.pairs:
        raise UserError("--inputs: a finished model brings no pairs; name some to check it with")
    specs = {f"data.eval.{name}": spec for name, spec in config.data.eval.items()}
    key, spec = next(iter({**specs, "data.pairs": config.data.pairs}.items()))
    return open_pairs(spec, key=key)


if __name__ == "__main__":
    command.run(main)
