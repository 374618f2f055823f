"""Where the cache folder is."""

from pathlib import Path

from ape_jax.storage.cache_folder import cache_dir


def test_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache"


def test_default_respects_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("APE_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "ape_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_dir() == Path.home() / ".cache" / "ape_jax"
