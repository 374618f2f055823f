"""Whose directory it is."""

import json

import pytest

from ape_jax import config as config_lib
from ape_jax.errors import UserError
from ape_jax.runs import workdir


@pytest.fixture
def config(tiny_config):
    return config_lib.resolve(tiny_config)


def changed(config, **changes):
    flat = {**config_lib.flatten(config), **changes}
    return config_lib.resolve(config_lib.unflatten(flat))


def test_config_is_read_back_as_it_was(tmp_path, config):
    workdir.claim(tmp_path / "run", config)
    assert workdir.read_config(tmp_path / "run") == config


def test_another_config_is_refused_by_its_first_key(tmp_path, config):
    workdir.claim(tmp_path, config)
    with pytest.raises(UserError, match=r"optim.lr is 0.001 there and 0.5 here"):
        workdir.claim(tmp_path, changed(config, **{"optim.lr": 0.5}))


def test_keys_that_do_not_change_the_result_may_differ(tmp_path, config):
    workdir.claim(tmp_path, config)
    workdir.claim(tmp_path, changed(config, **{"train.log_every": 1}))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seed": "x"}', '{"no.such": 1}'])
def test_damaged_config_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError) as error:
        workdir.read_config(tmp_path)
    assert "\n" not in str(error.value)


def test_directory_under_a_file_is_one_sentence(tmp_path, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        workdir.claim(tmp_path / "file" / "run", config)


@pytest.mark.parametrize("name", ["gs://bucket/run", "runs/exp[1]", "runs/*"])
def test_path_that_would_lose_checkpoints_is_refused(name):
    with pytest.raises(UserError, match="--workdir"):
        workdir.locate(name)


def test_a_run_that_an_earlier_version_recorded_with_keys_of_studies_opens(tmp_path, config):
    flat = {**config_lib.flatten(config), "study.methods": ["ape"], "study.seeds": 2}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    assert workdir.read_config(tmp_path) == config
    assert not workdir.claim(tmp_path, config)


def test_a_study_is_no_run_and_a_run_no_study(tmp_path, config):
    workdir.claim(tmp_path / "study", config, "study")
    with pytest.raises(UserError, match="holds a study"):
        workdir.locate(tmp_path / "study")
    workdir.claim(tmp_path / "run", config)
    with pytest.raises(UserError, match="holds a run"):
        workdir.locate(tmp_path / "run", "study")


def test_checkpoints_without_a_config_are_not_taken_over(tmp_path, config):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        workdir.claim(tmp_path, config)


def test_a_directory_whose_run_is_refused_takes_the_next_one(tmp_path, config):
    def refused():
        with workdir.given_back(tmp_path, workdir.claim(tmp_path, config)):
            (tmp_path / "checkpoints").mkdir()
            raise UserError("a picture cannot be read")

    for _ in range(2):
        with pytest.raises(UserError, match="a picture"):
            refused()
    assert workdir.claim(tmp_path, changed(config, **{"train.steps": 7}))


def test_checkpoints_of_a_refused_run_stay(tmp_path, config):
    with pytest.raises(UserError), workdir.given_back(tmp_path, workdir.claim(tmp_path, config)):
        (tmp_path / "checkpoints/3").mkdir(parents=True)
        raise UserError("")
    assert (tmp_path / "checkpoints/3").is_dir()


def test_two_processes_do_not_work_in_one_directory(tmp_path):
    with workdir.held(tmp_path):
        with pytest.raises(UserError, match="another process"), workdir.held(tmp_path):
            pass
    with workdir.held(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_summary_that_cannot_be_read_is_no_summary(tmp_path, config, content):
    workdir.claim(tmp_path, config)
    (tmp_path / "summary.json").write_text(content)
    assert workdir.read_summary(tmp_path, config) is None
    workdir.write_summary(tmp_path, {"step": 3})
    assert workdir.read_summary(tmp_path, config) == {"step": 3}
