"""Captions that a tower cuts are counted, and so are those that become the same."""

import dataclasses
import itertools
import json
import unicodedata

import numpy as np
import pytest
from tokenizers import normalizers

from ape_jax import config as config_lib
from ape_jax import towers
from ape_jax.features import cut
from ape_jax.features.cut import Cut, cut_of
from ape_jax.training import extraction, loop

LONG = "the red square of the picture of a blue bar the red square"
MANY = [f"{LONG} {a} {b}" for a, b in itertools.product(("red", "blue", "green"), ("bar", "a"))]


@pytest.fixture(scope="module")
def text(tiny):
    return towers.load(str(tiny / "text"), kind="text", dtype="float32", max_length=8).tower


def test_they_are_counted(text):
    texts = ["a red bar", *MANY, "blue " * 20]
    assert cut_of(text, texts, "captions") == Cut(cut=7, captions=8, tokens=8, same=6)
    said = str(cut_of(text, texts, "captions"))
    assert said == "7 of 8 captions are cut to 8 tokens, and 6 of these become the same as another"


def test_lengths_of_what_is_encoded_spare_the_short_ones(text, monkeypatch):
    texts = ["a red bar", *MANY]
    lengths = np.minimum(text.prepare.lengths(texts), 8)
    seen = []
    whole = type(text.prepare).bodies
    monkeypatch.setattr(
        type(text.prepare), "bodies", lambda self, some: seen.extend(some) or whole(self, some)
    )
    found = cut_of(text, texts, "captions", lengths)
    assert seen == MANY
    assert found == cut_of(text, texts, "captions")


def test_a_character_has_no_more_bytes_in_any_form_than_are_reckoned_with():
    forms = [normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD()]
    forms += [normalizers.Sequence([normalizers.Lowercase(), form]) for form in forms]
    forms += [normalizers.BertNormalizer(handle_chinese_chars=False)]
    for c in map(chr, range(0x80, 0x20000)):
        if unicodedata.category(c) not in ("Cn", "Co", "Cs"):
            longest = max(len(form.normalize_str(c).encode()) for form in forms)
            assert longest <= cut._most_tokens(c), hex(ord(c))


def test_short_texts_of_other_alphabets_are_not_tokenised(text, monkeypatch):
    tower = dataclasses.replace(text, prepare=dataclasses.replace(text.prepare, max_length=64))
    monkeypatch.setattr(type(text.prepare), "bodies", lambda *_: pytest.fail("tokenised"))
    assert cut_of(tower, ["kaķis sēž uz galda", "кот на столе", "a cat"], "captions") is None


def test_a_text_that_just_fits_is_not_cut(text):
    fits = next(
        t for n in range(1, 9) if text.prepare.lengths([t := " ".join(["red"] * n)])[0] == 8
    )
    assert cut_of(text, [fits], "captions", np.array([8])) is None
    assert cut_of(text, [f"{fits} red"], "captions", np.array([8])) is not None


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_says_so_from_the_cache_and_from_the_step(tiny, tmp_path, capsys, cached):
    config = config_lib.default()
    config.image.tower, config.text.tower = str(tiny / "image"), str(tiny / "text")
    config.image.dtype = config.text.dtype = "float32"
    captions = [f"{LONG} {i}" if i < 20 else "a red bar" for i in range(24)]
    rows = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    images = [tiny / row["image"] for row in rows]
    lines = [json.dumps({"image": str(i), "caption": c}) for i, c in zip(images, captions)]
    (tmp_path / "long.jsonl").write_text("\n".join(lines))
    config.data.pairs = str(tmp_path / "long.jsonl")
    config.data.eval = {"same": config.data.pairs}
    config.text.max_length, config.cache.text = 8, cached
    config.train.batch, config.train.steps, config.train.checkpoint_every = 8, 4, 2
    config.cache.dir = str(tmp_path / "cache")
    config = config_lib.resolve(config)
    if cached:
        extraction.extract(config, tmp_path / "extracted")
        said = capsys.readouterr().err
        assert "training captions: 20 of 21 captions are cut to 8 tokens, and 20 of" in said
    expected = {"cut": 20, "captions": 21, "tokens": 8, "same": 20}
    for start in ("first", "again"):
        summary = loop.train_and_evaluate(config, tmp_path / start)
        assert summary["captions_cut"] == {"train": expected, "eval/same": expected}
        said = capsys.readouterr().err
        assert said.count("training: 20 of 21 captions are cut to 8 tokens") == 1
        assert "captions cut, eval/same" in {notice["kind"] for notice in summary["notices"]}
