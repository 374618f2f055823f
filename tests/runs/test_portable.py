"""What an exported work directory brings of its towers."""

from ape_jax.runs import portable


def test_an_npz_comes_with_the_tokenizer_beside_it(tmp_path):
    for name in ("LiT-B16B.npz", "LiT-B16B.txt", "LiT-B16B.tokenizer.json", "other.txt"):
        (tmp_path / name).write_text(name)
    portable._bring(tmp_path / "LiT-B16B.npz", tmp_path / "towers/text")
    brought = {path.name: path.read_text() for path in (tmp_path / "towers").iterdir()}
    assert brought == {f"text.{end}": f"LiT-B16B.{end}" for end in ("npz", "txt", "tokenizer.json")}
