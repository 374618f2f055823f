"""The demo's part of the cache folder."""

import shutil
import sys

import pytest

from ape_jax.demo import cache
from ape_jax.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def nothing(directory):
    return False


def test_unwritable_cache_is_a_user_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be written .* set APE_JAX_CACHE"):
        cache.make_once("thing", lambda work: None, nothing)


def test_full_disk_is_a_user_error(folder):
    def build(work):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device\); free some space"):
        cache.make_once("thing", build, nothing)


def test_without_the_renderer_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match=r"resvg.*ape_jax\[demo\]"):
        cache.require_renderer()


def test_too_little_space_is_said_before_any_download(folder, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="It needs 5 MB but only 1 MB are free"):
        cache.require_space(5_000_000, "It needs")
