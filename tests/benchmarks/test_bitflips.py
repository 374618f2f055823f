"""A part of `bitflips.py`: no file with a flipped bit is used without a word."""

from ape_jax.demo.towers import assets
from tests.benchmarks import bitflips

KINDS = ("checkpoint", "resumed", "features", "pairs", "vectors", "index", "demo tower", "jax")


def test_no_flipped_bit_is_used_without_a_word(tmp_path, monkeypatch):
    # What the world changes is put back.
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    monkeypatch.setitem(assets.TOWERS, "minilm", assets.TOWERS["minilm"])
    monkeypatch.setattr(assets, "_build", assets._build)
    world = bitflips.World(tmp_path)
    found = bitflips.summary(bitflips.campaign(tmp_path, world.kinds(KINDS), 40, seed=1))
    assert found["wrong"] == []
    assert found["noticed"] > 20


def test_a_use_that_checks_nothing_is_found(tmp_path):
    """The campaign itself can fail."""
    folder = tmp_path / "whole"
    folder.mkdir()
    (folder / "a").write_bytes(bytes(100))
    kind = bitflips.Kind(
        name="bytes", folder=folder, patterns=("a",), use=lambda f: (f / "a").read_bytes()
    )
    found = bitflips.summary(bitflips.campaign(tmp_path, [kind], 5, seed=0))
    assert (found["silent"], found["noticed"], found["harmless"]) == (5, 0, 0)
