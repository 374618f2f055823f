"""Errors of the disk in one sentence, and checks of free space."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from ape_jax.errors import UserError
from ape_jax.storage import disk
from ape_jax.storage.disk import cache_dir


def test_error_names_path_reason_and_remedy():
    with pytest.raises(UserError) as error, disk.write_errors("--out: /x"):
        raise PermissionError(errno.EACCES, "Permission denied")
    sentence = "--out: /x cannot be written (Permission denied); name another directory"
    assert str(error.value) == sentence


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_can_also_be_freed(number):
    with pytest.raises(UserError, match=r"; free some space or name another disk$"):
        with disk.write_errors("--out: /x", "name another disk"):
            raise OSError(number, os.strerror(number))


def test_error_without_a_number_is_one_line():
    with pytest.raises(UserError, match=r"\(two lines\)"), disk.write_errors("--out: /x"):
        raise OSError("two\n  lines")


def test_other_errors_are_left_alone():
    with pytest.raises(UserError, match=r"^mine$"), disk.write_errors("--out: /x"):
        raise UserError("mine")


def test_too_little_space_says_how_much_is_needed_and_where(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    disk.require_space(tmp_path, 1_000_000, "It needs", "name another directory")
    with pytest.raises(UserError) as error:
        disk.require_space(tmp_path, 5_000_000, "It needs", "name another directory")
    assert str(error.value) == (
        f"It needs 5 MB but only 1 MB are free in {tmp_path}; free some, or name another directory"
    )


def test_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache"


def test_default_respects_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("APE_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "ape_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_dir() == Path.home() / ".cache" / "ape_jax"
