"""Manifests: what makes a directory complete."""

import os

from ape_jax.demo.packages import manifest
from ape_jax.storage import files, verified


def test_sizes_version_and_hashes(tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"abc")
    assert not manifest.matches(tmp_path, "1")
    assert manifest.write(tmp_path, "1") == 3
    assert manifest.matches(tmp_path, "1") and manifest.matches(tmp_path, "1", full=True)
    assert not manifest.matches(tmp_path, "2")
    (tmp_path / "sub" / "file").write_bytes(b"abd")
    assert not manifest.matches(tmp_path, "1") and not manifest.matches(tmp_path, "1", full=True)
    assert capsys.readouterr().err.endswith("sub/file is damaged; it is made anew\n")
    (tmp_path / "sub" / "file").write_bytes(b"abcd")
    assert not manifest.matches(tmp_path, "1")
    assert "sub/file has another size" in capsys.readouterr().err


def test_a_large_file_is_read_again_when_it_has_changed(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(2**20 + 1))
    os.utime(file, (1, 1))
    manifest.write(tmp_path, "1")
    monkeypatch.setattr(verified, "_SETTLED", 0)
    assert manifest.matches(tmp_path, "1")
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256", lambda path, name="": "unread")
        assert manifest.matches(tmp_path, "1")
    with file.open("r+b") as content:
        content.seek(2**19)
        content.write(b"\1")
    os.utime(file, (1, 1))
    assert not manifest.matches(tmp_path, "1")


def test_broken_manifest_is_not_complete(tmp_path):
    for text in (
        "",
        "[]",
        "[" * 100_000,
        '{"version": "1"}',
        '{"version": "1", "files": {"a": 1}}',
    ):
        (tmp_path / manifest.NAME).write_text(text)
        assert not manifest.matches(tmp_path, "1")
