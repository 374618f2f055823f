"""Rules of the languages of captions (`data.language`)."""

from __future__ import annotations

from ape_jax.config.components import text_parts
from ape_jax.config.experiment import Config
from ape_jax.config.outside import is_precomputed
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError for what the means of languages do not go with."""
    language = config.data.language
    if not language:
        return
    if is_precomputed(config.text.tower):
        raise UserError(
            f"config.data.language: the captions of text.tower={config.text.tower!r} are vectors, "
            "whose words and languages are not known; write '', or take the mean of each language "
            "off the vectors yourself"
        )
    if language != "auto" and is_precomputed(config.data.pairs):
        raise UserError(
            f"config.data.language: {config.data.pairs!r} has no column {language!r}; write 'auto' "
            "to tell languages by script, or ''"
        )
    if config.text.tune != "frozen" or not config.cache.text:
        raise UserError(
            "config.data.language: means of languages are fixed before training; it needs "
            f"text.tune='frozen' and cache.text=True, found {config.text.tune!r} and "
            f"{config.cache.text}"
        )
    if set(text_parts(config.text.head.name)) == {"lookup"} and config.trains:
        raise UserError(
            "config.data.language: a 'lookup' head reads no encodings that a mean could be taken "
            "off; write '', or a text.head.name such as 'linear+lookup'"
        )
    if config.data.texts:
        raise UserError(
            "config.data.language: the languages of unpaired texts (data.texts) are not known; "
            "write '' for one of the two"
        )
    if config.loss.hard:
        raise UserError(
            "config.data.language: negative captions have no language; write loss.hard=0, or ''"
        )
