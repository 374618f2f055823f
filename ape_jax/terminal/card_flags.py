"""The flags of commands that write a model card: what only the user knows of a model."""

from __future__ import annotations

from absl import flags

_OWN = flags.FlagValues()
_NAMES = ("license", "language", "datasets", "base_model")
for _name, _words in zip(
    _NAMES,
    (
        "For the model card: licence of the model, as the hub names it: cc-by-4.0.",
        "For the model card: languages of the captions, as codes: lv or en,lv.",
        "For the model card: data sets on the hub that it was trained on.",
        "For the model card: models on the hub that its towers are.",
    ),
):
    flags.DEFINE_string(_name, "", _words, flag_values=_OWN)


def add(own: flags.FlagValues) -> None:
    """Adds these flags to a command's."""
    for name in _NAMES:
        own[name] = _OWN[name]


def values(own: flags.FlagValues) -> dict[str, tuple[str, ...]]:
    """What was written, by the name of the flag; several values are divided by commas.

    Args:
      own: flags of the command, which are parsed.
    """
    return {
        name: tuple(word.strip() for word in own[name].value.split(",") if word.strip())
        for name in _NAMES
    }
