"""`TextPrepare` against transformers' AutoTokenizer on the same directory."""

import json
import pickle

import numpy as np
import pytest
import tokenizers
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ape_jax.errors import UserError
from ape_jax.towers.text import auto, token_files, tokens

TEXTS = [
    "[CLS] a [MASK] <s> cat</s> <mask> <unk> <|end|><|endoftext|>",
    "[NEW] cat <new>x",
    " one space before",
    "ALL CAPS Straße ÉCLAIR",
    "日本語とひらがなカタカナ",
    "한국어 고양이",
    "हिन्दी बिल्ली",
    "ไทย แมว",
    "γάτα ελληνικά",
    "a" * 60,
    "x",
    "...!?,;",
    "A cat, two dogs & 3 cafés!",
    "Ein Hund läuft über die Straße",
    "кошка и собака",
    "一只猫 and 二 dogs",
    "emoji 🐱👍🏽 zwj 👩‍🔬",
    "قطة صغيرة",
    "tabs\tand\nnewlines\u00a0and\u200bzero width",
    "  spaces around  ",
    "",
]
WORDS = ["a", "cat", "two", "dog", "##s", "cafe", "hund", "ein", "Hund", "Ein", "и", "猫", "!", ","]
CHARACTERS = [chr(c) for c in range(97, 123)] + ["##" + chr(c) for c in range(97, 123)]
VOCAB = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *CHARACTERS]))


def bert_directory(path, *, tokenizer_json=True, **kwargs):
    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (path / "tokenizer_config.json").write_text(json.dumps(kwargs))
    if tokenizer_json:
        transformers.AutoTokenizer.from_pretrained(path).save_pretrained(path)
        (path / "vocab.txt").unlink()
    return path


def byte_vocab(end=""):
    alphabet = sorted(bytes_to_unicode().values())
    return [*alphabet, *(c + end for c in alphabet)] if end else alphabet


def roberta_directory(path):
    merges = [("c", "a"), ("ca", "t"), ("Ġ", "d"), ("Ġd", "o")]
    names = ["<s>", "<pad>", "</s>", "<unk>", *byte_vocab(), *map("".join, merges), "<mask>"]
    vocab = {name: index for index, name in enumerate(names)}
    transformers.RobertaTokenizer(vocab=vocab, merges=merges).save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "roberta", "pad_token_id": 1}))
    return path


def clip_directory(path):
    merges = [("c", "a"), ("ca", "t</w>")]
    names = [*byte_vocab("</w>"), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocab = {name: index for index, name in enumerate(names)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))
    return path


def xlmr_directory(path):
    """As E5's files are: sentencepiece's spaces without the splitting that transformers adds."""
    names = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        *"abcdefghijklmnopqrstuvwxyz",
        "▁a",
        "▁cat",
        "猫",
    ]
    vocab = [(name, -float(index)) for index, name in enumerate([*names, "<mask>"])]
    transformers.XLMRobertaTokenizer(vocab=vocab).save_pretrained(path)
    content = json.loads((path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "always",
        "split": True,
    }
    (path / "tokenizer.json").write_text(json.dumps(content))
    (path / "config.json").write_text(json.dumps({"model_type": "xlm-roberta"}))
    return path


def siglip2_directory(path, **settings):
    """Gemma's tokenizer, which transformers' class makes lower case."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz!▁", "ca"]
    vocab = {word: place for place, word in enumerate(words)}
    tokenizer = transformers.Siglip2Tokenizer(vocab=vocab, merges=[("c", "a")], **settings)
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "siglip2_text_model"}))
    return path


def t5_directory(path):
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁cat", -3.0)]
    words += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz!,猫"]
    transformers.T5Tokenizer(vocab=words, extra_ids=4).save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    return path


def byte_directory(path, **settings):
    """Qwen's and Llama 3's kind: bytes, and what stands round a text in tokenizer.json alone."""
    vocab = {name: index for index, name in enumerate([*byte_vocab(), "<|end|>", "<|begin|>"])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<|end|>", "<|begin|>"])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", vocab["<|end|>"])]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>"
    )
    tokenizer.save_pretrained(path)
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return path


def load(path, **kwargs):
    return tokens.load_prepare(path, **{"vocab_size": 10_000, "max_length": 512, **kwargs})


def assert_equals_auto_tokenizer(path, prepare, texts=TEXTS, length=None):
    auto = transformers.AutoTokenizer.from_pretrained(path)
    texts = [text for text in texts if auto(text)["input_ids"]]
    batch = prepare(texts, length)
    want = auto(texts, truncation=True, max_length=length or prepare.max_length)["input_ids"]
    got = [ids[mask].tolist() for ids, mask in zip(batch["ids"], batch["mask"])]
    assert got == want
    assert (batch["ids"][~batch["mask"]] == auto.pad_token_id).all()
    assert batch["ids"].dtype == np.int32 and batch["mask"].dtype == bool


MAKERS = [
    bert_directory,
    roberta_directory,
    xlmr_directory,
    clip_directory,
    siglip2_directory,
    t5_directory,
    byte_directory,
]


@pytest.mark.parametrize("make", MAKERS)
def test_ids_equal_auto_tokenizer_on_mixed_scripts(tmp_path, make):
    path = make(tmp_path)
    assert_equals_auto_tokenizer(path, load(path))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("length", [4, 7])
def test_truncation_keeps_the_special_tokens(tmp_path, make, length):
    path = make(tmp_path)
    prepare = load(path)
    assert_equals_auto_tokenizer(path, prepare, length=length)
    ids = prepare(["two cats and more"], length)["ids"][0]
    assert tuple(ids[len(ids) - len(prepare.after) :]) == prepare.after


def test_a_directory_with_only_vocab_txt_is_read_through_transformers(tmp_path):
    path = bert_directory(tmp_path, tokenizer_json=False, do_lower_case=False)
    assert_equals_auto_tokenizer(path, load(path))


def test_tokenizer_config_overrules_the_case_of_tokenizer_json(tmp_path):
    path = bert_directory(tmp_path, do_lower_case=True)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    assert_equals_auto_tokenizer(path, load(path))
    assert VOCAB.index("Ein") in load(path)(["Ein Hund"])["ids"]


NEW = {
    "content": "[NEW]",
    "lstrip": False,
    "rstrip": True,
    "normalized": False,
    "single_word": False,
}
SETTINGS = {
    "truncation_side": {"truncation_side": "left"},
    "split_special_tokens": {"split_special_tokens": True},
    "add_prefix_space": {"add_prefix_space": True},
    "no lower case": {"do_lower_case": False, "strip_accents": False},
    "Chinese": {"tokenize_chinese_chars": False},
    "added": {"added_tokens_decoder": {"300": {**NEW, "special": True}}},
    "additional": {"additional_special_tokens": ["[NEW]", "<new>"]},
    "extra": {"extra_special_tokens": {"image_token": "<new>"}},
    "bos and eos": {"add_bos_token": True, "add_eos_token": True, "bos_token": "<|begin|>"},
    "no eos": {"add_eos_token": False},
    "length": {"model_max_length": 12},
    "padding": {"padding_side": "left", "pad_token": None},
    "letters for special tokens": {
        **{"bos_token": "a", "eos_token": "b", "cls_token": "a", "sep_token": "m"},
        **{"add_bos_token": True, "add_eos_token": True},
    },
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "make", [bert_directory, roberta_directory, xlmr_directory, byte_directory]
)
def test_settings_beside_tokenizer_json_are_those_of_transformers(tmp_path, make, name):
    path = make(tmp_path)
    file = path / "tokenizer_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(settings | SETTINGS[name]))
    prepare = load(path)
    for length in (None, 5, 16):
        assert_same_ids(path, prepare, length)


def assert_same_ids(path, prepare, length=None, texts=TEXTS):
    auto = transformers.AutoTokenizer.from_pretrained(path)
    texts = [text for text in texts if auto(text)["input_ids"]]
    batch = prepare(texts, length)
    want = auto(texts, truncation=True, max_length=length or prepare.max_length)["input_ids"]
    assert [ids[mask].tolist() for ids, mask in zip(batch["ids"], batch["mask"])] == want


BARE = {
    "no post-processor": {"post_processor": None},
    "no normalizer": {"normalizer": None},
    "no added tokens": {"added_tokens": []},
}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("make", [bert_directory, roberta_directory, xlmr_directory])
def test_a_tokenizer_json_without_parts_is_what_transformers_makes_of_it(tmp_path, make, name):
    path = make(tmp_path)
    content = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps(content | BARE[name]))
    assert_same_ids(path, load(path))


def test_a_class_that_config_json_alone_names(tmp_path):
    path = roberta_directory(tmp_path)
    (path / "tokenizer_config.json").unlink()
    named = {"model_type": "bert", "tokenizer_class": "RobertaTokenizer"}
    (path / "config.json").write_text(json.dumps(named))
    assert_same_ids(path, load(path))


def test_padding_that_a_tower_reads_stands_where_the_tokenizer_puts_it(tmp_path):
    for side in ("left", "right"):
        path = siglip2_directory(tmp_path / side, padding_side=side)
        auto = transformers.AutoTokenizer.from_pretrained(path)
        prepare = load(path, max_length=16, fills=True)
        want = auto(TEXTS[:5], padding="max_length", truncation=True, max_length=16)["input_ids"]
        assert prepare(TEXTS[:5])["ids"].tolist() == want
        assert not prepare.prefix and prepare(["Cat"])["mask"].all()


def test_a_special_token_without_a_row_is_refused_in_a_text_alone(tmp_path):
    path = bert_directory(tmp_path)
    file = path / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"additional_special_tokens": ["[NEW]"]}
    file.write_text(json.dumps(settings))
    prepare = load(path, vocab_size=len(VOCAB))
    assert prepare(["a cat"])["mask"].sum() == 4
    with pytest.raises(UserError, match="holds a special token"):
        prepare(["a cat [NEW]"])


def test_what_transformers_made_is_kept_and_made_again_where_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(auto, "_WORTH_KEEPING", 0)
    path = bert_directory(tmp_path / "tower", truncation_side="left", split_special_tokens=True)
    load(path)
    (kept,) = (tmp_path / "cache" / "tokenizers").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(transformers.AutoTokenizer, "from_pretrained", None)
        assert_kept = load(path)
    assert_same_ids(path, assert_kept, 6)
    kept.write_bytes(b"damaged")
    assert_same_ids(path, load(path), 6)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    assert_same_ids(path, load(path), 6)


def test_truncation_and_padding_in_tokenizer_json_are_not_used(tmp_path):
    path = bert_directory(tmp_path)
    content = json.loads((path / "tokenizer.json").read_text())
    content["truncation"] = {
        "direction": "Left",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 128},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (path / "tokenizer.json").write_text(json.dumps(content))
    assert load(path)(["a cat " * 5])["mask"].sum() == 12


def test_pads_to_the_longest_rounded_up_to_eight_and_capped(tmp_path):
    prepare = load(bert_directory(tmp_path), max_length=13)
    assert prepare(["a cat"])["ids"].shape == (1, 8)
    assert prepare(["a cat", "a " * 6])["ids"].shape == (2, 8)
    assert prepare(["a cat", "a " * 7])["ids"].shape == (2, 13)
    assert prepare(["a cat"], 11)["ids"].shape == (1, 11)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 40),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, 40),
        ({"tokenizer_config.json": {"model_max_length": int(1e30)}}, 40),
        ({"tokenizer_config.json": {"model_max_length": 32}}, 32),
        (
            {
                "tokenizer_config.json": {"model_max_length": 32},
                "sentence_bert_config.json": {"max_seq_length": 16},
            },
            16,
        ),
        ({"sentence_bert_config.json": {"max_seq_length": 512}}, 40),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, 40),
    ],
)
def test_max_length_comes_from_the_files_and_the_position_table(tmp_path, files, expected):
    path = bert_directory(tmp_path)
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    assert token_files.max_length(path, least=3, positions=40) == expected


def test_the_declared_prompt_is_the_prefix_and_the_argument_wins(tmp_path):
    path = bert_directory(tmp_path)
    prompts = {"prompts": {"query": "ein "}, "default_prompt_name": "query"}
    (path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    plain, declared, given = load(path, prefix=""), load(path), load(path, prefix="two ")
    assert (plain.prefix, declared.prefix, given.prefix) == ("", "ein ", "two ")
    np.testing.assert_array_equal(declared(["cat"])["ids"], plain(["ein cat"])["ids"])
    np.testing.assert_array_equal(given(["cat"])["ids"], plain(["two cat"])["ids"])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ([], "empty list"),
        ("a cat", r"write \[text\]"),
        (["a cat", None], "text 1 is NoneType"),
        ([b"a cat"], "text 0 is bytes"),
        (3, "found 3"),
        (["half \ud83d"], "surrogate"),
    ],
)
def test_what_is_not_a_list_of_texts_is_a_user_error(tmp_path, texts, match):
    with pytest.raises(UserError, match=match):
        load(bert_directory(tmp_path))(texts)


@pytest.mark.parametrize("length", [0, 2, 21])
def test_a_length_out_of_range_is_a_user_error(tmp_path, length):
    with pytest.raises(UserError, match="from 3 to 20"):
        load(bert_directory(tmp_path), max_length=20)(["a cat"], length)


def test_a_max_length_without_room_for_text_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="max_length 2 leaves no room"):
        load(bert_directory(tmp_path), max_length=2)


def test_a_tokenizer_with_more_ids_than_the_weights_is_a_user_error(tmp_path):
    path = bert_directory(tmp_path)
    assert load(path, vocab_size=len(VOCAB))
    with pytest.raises(UserError, match=f"table of {len(VOCAB) - 1} tokens"):
        load(path, vocab_size=len(VOCAB) - 1)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "found no tokenizer.json"),
        ({"tokenizer.json": "{"}, "tokenizer.json: not a tokenizer"),
        ({"sentencepiece.bpe.model": "junk"}, "transformers cannot read"),
    ],
)
def test_a_missing_or_broken_tokenizer_is_a_user_error(tmp_path, files, match):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=match):
        load(tmp_path)


def test_a_broken_settings_file_is_a_user_error(tmp_path):
    path = bert_directory(tmp_path)
    (path / "config_sentence_transformers.json").write_text("[1]")
    with pytest.raises(UserError, match=r"config_sentence_transformers\.json"):
        load(path)


def test_prepare_can_be_sent_to_a_worker_process(tmp_path):
    prepare = load(bert_directory(tmp_path))
    copy = pickle.loads(pickle.dumps(prepare))
    np.testing.assert_array_equal(copy(TEXTS)["ids"], prepare(TEXTS)["ids"])
