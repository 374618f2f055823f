"""Whose directory it is."""

import json

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs.directory import claim, workdir


@pytest.fixture
def config(tiny_config):
    return config_lib.resolve(tiny_config)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seed": "x"}', '{"no.such": 1}'])
def test_damaged_config_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError) as error:
        workdir.read_config(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gs://bucket/run", "runs/exp[1]", "runs/*"])
def test_path_that_would_lose_checkpoints_is_refused(name):
    with pytest.raises(UserError, match="--workdir"):
        workdir.locate(name)


def test_a_run_that_an_earlier_version_recorded_with_keys_of_studies_opens(tmp_path, config):
    flat = {**config_lib.flatten(config), "study.methods": ["ape"], "study.seeds": 2}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    assert workdir.read_config(tmp_path) == config


def test_a_study_is_no_run_and_a_run_no_study(tmp_path, config):
    with claim.claimed(tmp_path / "study", config, "study"):
        with pytest.raises(UserError, match="holds a study"):
            workdir.locate(tmp_path / "study")
    with claim.claimed(tmp_path / "run", config):
        with pytest.raises(UserError, match="holds a run"):
            workdir.locate(tmp_path / "run", "study")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_summary_that_cannot_be_read_is_no_summary(tmp_path, config, content):
    with claim.claimed(tmp_path, config):
        pass
    (tmp_path / "summary.json").write_text(content)
    assert workdir.read_summary(tmp_path, config) is None
    workdir.write_summary(tmp_path, {"step": 3})
    assert workdir.read_summary(tmp_path, config) == {"step": 3}
