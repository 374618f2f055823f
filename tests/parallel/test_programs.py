"""Compiled programs are kept."""

import jax
import pytest

from ape_jax.parallel import programs


@pytest.fixture
def settings():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_they_are_kept_in_the_cache_folder(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    programs.keep()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")


def test_the_users_own_place_stays(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "mine")
    programs.keep()
    assert jax.config.jax_compilation_cache_dir == "mine" and not list(tmp_path.iterdir())
