"""Tokenizer settings drawn at random: ids are transformers' own, or the refusal is a sentence."""

import json
import random

import pytest
import transformers

from ape_jax.errors import UserError
from tests.towers.text import test_tokens as tokens

ADDED = {"content": "[NEW]", "lstrip": False, "rstrip": True, "single_word": False}
VALUES = {
    "do_lower_case": (True, False),
    "strip_accents": (True, False, None),
    "tokenize_chinese_chars": (True, False),
    "truncation_side": ("left", "right"),
    "padding_side": ("left", "right"),
    "add_prefix_space": (True, False),
    "split_special_tokens": (True, False),
    "model_max_length": (6, 12, 512, 1e30),
    "additional_special_tokens": (["[NEW]"], ["cat"], []),
    "extra_special_tokens": ({"image_token": "<new>"}, {}),
    "add_bos_token": (True, False),
    "add_eos_token": (True, False),
    "bos_token": ("<|begin|>", "[CLS]", "a"),
    "eos_token": ("<|end|>", "[SEP]", "b"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>", "a"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>", None),
    "tokenizer_class": ("BertTokenizer", "RobertaTokenizer", "PreTrainedTokenizerFast"),
    "added_tokens_decoder": (
        {"300": {**ADDED, "normalized": False, "special": True}},
        {"301": {**ADDED, "normalized": True, "special": False}},
    ),
    "do_basic_tokenize": (False,),
    "never_split": (["cat"],),
    "from_slow": (True,),
}
MAPPED = {
    "bos_token": ("<|begin|>", "[MASK]"),
    "cls_token": ("[MASK]", "<s>"),
    "additional_special_tokens": (["two"], ["<x>"]),
}


def choose(draw, values, count):
    return {key: draw.choice(values[key]) for key in draw.sample(list(values), count)}


@pytest.mark.parametrize("make", tokens.MAKERS)
def test_ids_equal_transformers_or_a_sentence_says_why_not(tmp_path, make):
    draw, equal = random.Random(make.__name__), 0
    for number in range(8):
        path = tmp_path / str(number)
        path.mkdir()
        make(path)
        file = path / "tokenizer_config.json"
        settings = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(settings | choose(draw, VALUES, draw.randint(1, 6))))
        if draw.random() < 0.3:
            mapped = json.dumps(choose(draw, MAPPED, 2))
            (path / "special_tokens_map.json").write_text(mapped)
        try:
            prepare = tokens.load(path)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        try:
            transformers.AutoTokenizer.from_pretrained(path)(tokens.TEXTS)
        except Exception:  # The library of tokenizers has no other for a text that it cannot cut.
            continue
        for length in (None, 7):
            tokens.assert_same_ids(path, prepare, length)
        equal += 1
    assert equal >= 5
