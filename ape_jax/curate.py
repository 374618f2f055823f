"""Chooses the pairs of a pool that serve a target: few, and carefully chosen.

ape-jax curate --config few_pairs:image=TOWER,text=TOWER --pairs pool.jsonl \
    --target names.txt --count 2000 --out chosen.jsonl --html chosen.html
"""

from __future__ import annotations

from absl import flags

from ape_jax.errors import UserError
from ape_jax.terminal import command
from ape_jax.terminal.flags import CONFIG, WORKDIR, flag_values, overrides

FLAGS = flag_values("config", "workdir", "json")
_PAIRS = flags.DEFINE_string(
    "pairs",
    "",
    "The pool to choose from, where the config names none or another.",
    flag_values=FLAGS,
)
_TARGET = flags.DEFINE_string(
    "target",
    "",
    "What the chosen pairs are to serve: a text file of names, a folder of images, or pairs.",
    flag_values=FLAGS,
)
_KIND = flags.DEFINE_enum(
    "kind",
    "auto",
    ["auto", "names", "images", "pairs"],
    "What counts of the target: texts, images or both; auto goes by the file.",
    flag_values=FLAGS,
)
_COUNT = flags.DEFINE_integer("count", 0, "Number of pairs to choose.", 0, flag_values=FLAGS)
_OUT = flags.DEFINE_string("out", "", "A new file of the chosen pairs, .jsonl.", flag_values=FLAGS)
_HTML = flags.DEFINE_string(
    "html", "", "A file to write a page with pictures to.", flag_values=FLAGS
)
_NEAR = flags.DEFINE_float(
    "near",
    0.95,
    "Cosine of two images above which one of them is left out; 1 keeps all.",
    0.0,
    1.0,
    flag_values=FLAGS,
)
_MISMATCHED = flags.DEFINE_float(
    "mismatched",
    0.8,
    "Share of other captions that suit an image better than its own, above which the pair is left "
    "out; 1 keeps all.",
    0.0,
    1.0,
    flag_values=FLAGS,
)
_DIVERSITY = flags.DEFINE_float(
    "diversity",
    0.0,
    "Weight of pairs unlike each other, that stand for all candidates; 0 leaves it out.",
    0.0,
    100.0,
    flag_values=FLAGS,
)


def main() -> None:
    """Writes the chosen pairs and prints what was left out, by kind."""
    if not _TARGET.value:
        raise UserError(
            "--target: expected a text file of names, a folder of images or pairs, found none"
        )
    if _COUNT.value < 1:
        raise UserError("--count: expected the number of pairs to choose, found none")
    if bool(CONFIG.value) == bool(WORKDIR.value):
        raise UserError(
            "--config: name the towers by --config RECIPE:image=TOWER,text=TOWER, or by --workdir "
            "those of a run; found " + ("both" if CONFIG.value else "neither")
        )
    from ape_jax.commands import curate

    asked = curate.Asked(
        pairs=_PAIRS.value,
        target=_TARGET.value,
        kind=_KIND.value,
        count=_COUNT.value,
        out=_OUT.value,
        html=_HTML.value,
        near=_NEAR.value,
        mismatched=_MISMATCHED.value,
        diversity=_DIVERSITY.value,
    )
    if _PAIRS.value:  # A recipe need not be told them.
        overrides["data.pairs"] = _PAIRS.value
    config = curate.config_of(WORKDIR.value) if WORKDIR.value else command.load_config()
    command.output(*curate.curate(config, asked))


if __name__ == "__main__":
    command.run(main)
