"""npm: what is said when it fails, and that only members asked for are read."""

import io
import shutil
import tarfile
import types

import pytest

from ape_jax.demo.icons import pairs as icons
from ape_jax.demo.packages import fetch, npm
from ape_jax.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "_PAUSE_SECONDS", 0.0)
    return tmp_path


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def failing_npm(monkeypatch, folder, text):
    script = folder / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{text}\nEND\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")


def test_missing_npm_is_said(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UserError, match=r"there is no npm; install Node\.js"):
        icons.prepare()
    assert files(folder) == []


def test_npm_is_tried_three_times_and_its_error_is_quoted(folder, monkeypatch, capsys):
    text = "npm error code ECONNREFUSED\nnpm error syscall connect\nnpm error FetchError: refused."
    failing_npm(monkeypatch, folder, text)
    with pytest.raises(UserError, match=r"@iconify/json@2\.2\.535: FetchError: refused; check"):
        icons.prepare()
    assert capsys.readouterr().err.count("npm failed (FetchError: refused); trying again") == 2
    assert not (folder / "icons").exists() and not list(folder.glob(".icons*"))


def test_a_version_that_is_gone_is_not_asked_for_again(folder, monkeypatch, capsys):
    failing_npm(monkeypatch, folder, "npm error code ETARGET\nnpm error notarget No matching.")
    with pytest.raises(UserError, match="notarget No matching; "):
        icons.prepare()
    assert "trying again" not in capsys.readouterr().err


def test_wrong_hash_is_a_user_error_and_leaves_nothing(folder, npm_of, icon_package, monkeypatch):
    npm_of(icon_package)
    pinned = fetch.Archive("@iconify/json", "2.2.535", 1000, "0" * 64)
    monkeypatch.setitem(npm.PACKAGES, "@iconify/json", pinned)
    with pytest.raises(UserError, match=r"tgz from npm's index has sha256 [0-9a-f]{64} instead of"):
        icons.prepare()
    assert files(folder) == []


def test_too_little_space_is_said_before_anything_is_fetched(folder, monkeypatch):
    usage = types.SimpleNamespace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(fetch.subprocess, "Popen", None)
    with pytest.raises(UserError, match=r"The icon data set needs \d+ MB but only 1 MB are free"):
        icons.prepare()


def test_only_regular_files_that_are_wanted_are_read(tmp_path):
    path = tmp_path / "x.tgz"
    with tarfile.open(path, "w:gz") as file:
        for name in ("package/json/a.json", "package/lib/run.js"):
            member = tarfile.TarInfo(name)
            member.size = 2
            file.addfile(member, io.BytesIO(b"{}"))
        link = tarfile.TarInfo("package/json/b.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    asked = []
    found = list(npm.read_members(path, lambda name: asked.append(name) or name.endswith("json")))
    assert found == [("json/a.json", b"{}")]
    assert asked == ["json/a.json", "lib/run.js"]


def test_huge_member_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.tgz"
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo("package/a")
        member.size = 11
        file.addfile(member, io.BytesIO(bytes(11)))
    monkeypatch.setattr(npm, "_MAX_MEMBER", 10)
    with pytest.raises(UserError, match="a holds 11 B, above 10"):
        list(npm.read_members(path, lambda _: True))


def test_cut_tarball_is_said(icon_package, tmp_path):
    path = tmp_path / "cut.tgz"
    path.write_bytes(icon_package.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"cut\.tgz is damaged"):
        list(npm.read_members(path, lambda _: True))
