"""Manifests: what makes a directory complete."""

from ape_jax.demo.packages import manifest


def test_sizes_version_and_hashes(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"abc")
    assert not manifest.matches(tmp_path, "1")
    assert manifest.write(tmp_path, "1") == 3
    assert manifest.matches(tmp_path, "1") and manifest.matches(tmp_path, "1", full=True)
    assert not manifest.matches(tmp_path, "2")
    (tmp_path / "sub" / "file").write_bytes(b"abd")
    assert manifest.matches(tmp_path, "1") and not manifest.matches(tmp_path, "1", full=True)
    (tmp_path / "sub" / "file").write_bytes(b"abcd")
    assert not manifest.matches(tmp_path, "1")


def test_broken_manifest_is_not_complete(tmp_path):
    for text in ("", "[]", '{"version": "1"}', '{"version": "1", "files": {"a": 1}}'):
        (tmp_path / manifest.NAME).write_text(text)
        assert not manifest.matches(tmp_path, "1")
