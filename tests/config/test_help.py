"""Config keys as people look them up."""

import pytest

from ape_jax.config import help as config_help
from ape_jax.config import schema
from ape_jax.config.experiment import Config
from ape_jax.studies.config import StudyConfig

ROWS = config_help.rows(kind=StudyConfig)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_every_key_has_a_line_that_says_what_it_is_for(row):
    assert len(row.why) > 10 and row.why.endswith(".") and row.takes


def test_rows_are_the_schema():
    known = schema.keys(Config)
    assert {row.key: row.default for row in config_help.rows()} == {
        key: field.default for key, field in known.items()
    }


@pytest.mark.parametrize(
    ("pattern", "found", "left"),
    [
        ("optim.l*", "optim.lr", "optim.clip"),
        ("learning rate", "optim.lr", "optim.clip"),
        ("cca", "closed.l2", "closed.neighbours"),
        ("DROPOUT", "latent.dropout", "latent.noise"),
    ],
)
def test_pattern_is_looked_for_in_names_lines_and_components(pattern, found, left):
    keys = [row.key for row in config_help.rows(pattern)]
    assert found in keys and left not in keys


def test_keys_of_components_name_them():
    (row,) = [row for row in ROWS if row.key == "image.head.expansion"]
    assert row.components == ("residual_mlp", "star_mlp")
    assert "(with residual_mlp, star_mlp)" in config_help.text("image.head.expansion")
