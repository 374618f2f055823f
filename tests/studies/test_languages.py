"""A study of captions in several languages: each has a table of its own, those left out as well."""

import json

import pytest

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.errors import UserError
from ape_jax.studies import study
from ape_jax.studies import tables as study_tables
from ape_jax.studies.config import StudyConfig

FORMS = {"en": "a {} {}", "de": "of {} the {} picture", "xx": "{1} of the {0}"}


@pytest.fixture
def config(tiny_config, tiny, tmp_path):
    rows = [
        {"image": str(tiny / line["image"]), "caption": form.format(*line["id"].split("-"))}
        | {"tongue": name}
        for line in map(json.loads, (tiny / "pairs.jsonl").read_text().splitlines())
        for name, form in FORMS.items()
    ]
    for name, some in (("train", ("en", "de")), ("test", ("en", "de", "xx"))):
        lines = [json.dumps(row) for row in rows if row["tongue"] in some]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    tiny_config.data.pairs = str(tmp_path / "train.jsonl")
    tiny_config.data.eval = {"test": str(tmp_path / "test.jsonl")}
    tiny_config.data.language = "tongue"
    tiny_config.study.methods, tiny_config.study.seeds = ("chance", "cca"), 1
    return tiny_config


def test_each_language_has_its_table(config, tmp_path):
    config = config_lib.resolve(config, StudyConfig)
    summary = study.run_study(config, tmp_path / "study")
    names = ["test", "test:de", "test:en", "test:xx"]
    assert summary["images"] == dict.fromkeys(names, 24)
    for method in ("chance", "cca"):
        assert sorted(summary["methods"][method]) == names
    text = study_tables.tables(summary)
    assert all(name in text for name in names)


def test_pixels_have_no_language(config, tmp_path):
    config.study.methods = ("chance", "pixels")
    with pytest.raises(UserError, match="'pixels' has no figures by language"):
        study.run_study(config_lib.resolve(config, StudyConfig), tmp_path / "study")


def test_the_recipe_trains_on_the_named_languages_and_tests_on_all():
    made = recipes.read("study:fresh,together=en+ja+ar")
    config = config_lib.resolve(made, StudyConfig)
    assert config.data.language == "language" and config.text.tower == "demo:me5_small"
    name, pairs, sets = config.study.domains[1]
    assert (name, pairs) == ("together2", "demo:twemoji/en+ja+ar:train@2")
    assert dict(sets)["style-shift"] == "demo:openmoji/all:test@2"
    with pytest.raises(UserError, match="together=LANGUAGE"):
        recipes.read("study:together=en+ja")
