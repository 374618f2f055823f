"""sentence-transformers' folders: vectors equal to those of `SentenceTransformer.encode`."""

import json
import shutil
import string

import numpy as np
import pytest
import torch
import transformers

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.show import check

sentence_transformers = pytest.importorskip("sentence_transformers")
from sentence_transformers.base.modules import Dense, Normalize, Transformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling  # noqa: E402

WIDTH = 16
TEXTS = [
    "a cat",
    "Two DOGS on a sofa",
    "x",
    "one very long text that has many more words than the tower takes tokens, so it is cut off",
    "the cat sat",
]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A small BERT with random weights, and a cased tokenizer of letters."""
    path = tmp_path_factory.mktemp("body")
    letters = [*string.ascii_letters, *string.punctuation, *string.digits]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    (path / "vocab.txt").write_text("\n".join([*words, *(f"##{c}" for c in letters)]))
    tokenizer = transformers.BertTokenizer.from_pretrained(path, do_lower_case=False)
    tokenizer.save_pretrained(path)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=48,
    )
    model = transformers.BertModel(config, add_pooling_layer=False)
    randomize(model)
    model.save_pretrained(path)
    return path


def randomize(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data = noise + (0.5 if parameter.ndim == 1 else 0.0)
    return module


@pytest.fixture
def saved(body, tmp_path):
    """Saves modules on the body, as sentence-transformers does, and gives its own vectors."""

    def save(*modules, length=None, settings=None, **options):
        path = tmp_path / "model"
        base = Transformer(str(body))
        modules = [randomize(module) for module in modules]
        model = sentence_transformers.SentenceTransformer(
            modules=[base, *modules], device="cpu", **options
        )
        model.save(str(path))
        if settings is not None:
            name = path / "sentence_bert_config.json"
            name.write_text(json.dumps({**json.loads(name.read_text()), **settings}))
        return path

    return save


def want(path, texts=TEXTS, **options):
    model = sentence_transformers.SentenceTransformer(str(path), device="cpu")
    return model.encode(texts, **options)


def assert_equal(path, expected=None, **options):
    tower = towers.load(str(path), dtype="float32", **options)
    got = tower.encode(TEXTS, batch=8)
    expected = want(path) if expected is None else expected
    assert got.dtype == np.float32 and got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
    return tower


@pytest.mark.parametrize("mode", ["cls", ("cls", "max", "mean"), MODES[::-1]])
def test_every_pooling_and_lists_of_them(saved, mode):
    tower = assert_equal(saved(Pooling(WIDTH, mode)))
    assert tower.config.head is None and not tower.config.unit


CHAINS = {
    "LaBSE": lambda: (Pooling(WIDTH, "cls"), Dense(WIDTH, WIDTH), Normalize()),
    "distiluse": lambda: (
        Pooling(WIDTH, "mean"),
        Dense(WIDTH, 10, activation_function=torch.nn.Tanh()),
    ),
    "no bias": lambda: (
        Pooling(WIDTH, ("mean", "max")),
        Dense(2 * WIDTH, 12, bias=False, activation_function=torch.nn.Identity()),
        LayerNorm(12),
        Dense(12, 7, activation_function=torch.nn.GELU(), use_residual=True),
    ),
    "norms": lambda: (
        Pooling(WIDTH, "mean"),
        Normalize(),
        LayerNorm(WIDTH),
        Dense(WIDTH, WIDTH, activation_function=torch.nn.Sigmoid(), use_residual=True),
        Normalize(),
    ),
    "unit": lambda: (Pooling(WIDTH, "mean"), Normalize()),
}


@pytest.mark.parametrize("name", CHAINS)
def test_modules_behind_the_pooling(saved, name):
    tower = assert_equal(saved(*CHAINS[name]()))
    assert "not read" not in " ".join(tower.tower.notes)


def test_a_prompt_and_its_tokens_left_out(saved):
    prompts = {"prompts": {"query": "find this: "}, "default_prompt_name": "query"}
    for include in (True, False):
        path = saved(Pooling(WIDTH, "mean", include_prompt=include), Normalize(), **prompts)
        tower = assert_equal(path)
        assert tower.prepare.prefix == "find this: "
        other = want(path, prompt="or that: ")
        assert_equal(path, other, prefix="or that: ")
        assert_equal(path, want(path, prompt=""), prefix="")


@pytest.mark.parametrize("mode", [("cls", "lasttoken"), ("max", "weightedmean")])
def test_other_poolings_without_the_prompt(saved, mode):
    path = saved(Pooling(WIDTH, mode, include_prompt=False), Dense(2 * WIDTH, 5))
    assert_equal(path, want(path, prompt="find: "), prefix="find: ")


def test_lower_case_and_length_of_the_settings(saved):
    plain, _ = want(saved(Pooling(WIDTH))), None
    path = saved(Pooling(WIDTH), settings={"do_lower_case": True, "max_seq_length": 9})
    assert np.abs(want(path) - plain).max() > 0.01
    assert assert_equal(path).config.max_length == 9


@pytest.mark.parametrize("dim", [5, 100])
@pytest.mark.parametrize("unit", [False, True])
def test_vectors_are_cut_as_the_settings_say(saved, dim, unit):
    path = saved(Pooling(WIDTH), *([Normalize()] if unit else []))
    file = path / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "truncate_dim": dim}))
    tower = assert_equal(path)
    assert "not read" not in " ".join(tower.tower.notes)


@pytest.mark.parametrize("key", ["config_args", "config_kwargs"])
def test_settings_that_change_the_config_are_left_to_the_library(saved, key):
    plain = want(saved(Pooling(WIDTH)))
    path = saved(Pooling(WIDTH), settings={key: {"hidden_act": "relu", "use_cache": False}})
    assert np.abs(want(path) - plain).max() > 0.01
    with pytest.raises(UserError, match=f"'{key}', which change hidden_act;.*write torch:st:"):
        towers.load(str(path))
    assert_equal(saved(Pooling(WIDTH), settings={key: {"use_cache": False}}), plain)


def test_how_the_library_runs_a_model_is_no_setting_of_the_tower(saved):
    own = {"attn_implementation": "eager", "add_pooling_layer": True}
    tower = assert_equal(saved(Pooling(WIDTH), settings={"model_args": own}))
    notes = " ".join(tower.tower.notes)
    assert "'model_args' of sentence-transformers is not read: add_pooling_layer" in notes
    assert "attn_implementation" not in notes


def older(path, name):
    """The folder as the first versions wrote it: everything in folders of its own."""
    below = path / "0_Transformer"
    below.mkdir()
    for file in list(path.iterdir()):
        if file.is_file() and file.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            shutil.move(file, below / file.name)
    settings = {"max_seq_length": 11, "do_lower_case": True}
    (below / "sentence_bert_config.json").rename(below / name)
    (below / name).write_text(json.dumps(settings))
    modules = json.loads((path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        module["type"] = f"sentence_transformers.models.{kind}"
    (path / "1_Pooling").rename(path / "1_Pool")
    modules[1]["path"] = "1_Pool"
    switches = {f"pooling_mode_{m}": m == "cls_token" for m in ("mean_tokens", "cls_token")}
    config = {"word_embedding_dimension": WIDTH, "pooling_mode_max_tokens": True, **switches}
    (path / "1_Pool" / "config.json").write_text(json.dumps(config))
    (path / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    "name", [f"sentence_{n}_config.json" for n in ("bert", "roberta", "xlm-roberta")]
)
def test_older_folders(saved, name):
    path = saved(Pooling(WIDTH), Dense(WIDTH, 4))
    settings = json.loads((path / "2_Dense" / "config.json").read_text())
    (path / "2_Dense" / "config.json").write_text(
        json.dumps({**settings, "in_features": 2 * WIDTH})
    )
    weights = torch.randn(4, 2 * WIDTH, generator=torch.Generator().manual_seed(1))
    import safetensors.torch

    file = path / "2_Dense" / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file({**tensors, "linear.weight": weights}, file)
    older(path, name)
    tower = assert_equal(path)
    assert tower.config.max_length == 11 and tower.config.head.pooling == "cls+max"


def test_the_check_compares_ids_vectors_and_tokens(saved):
    prompts = {"prompts": {"query": "find: "}, "default_prompt_name": "query"}
    path = saved(Pooling(WIDTH, "mean"), Dense(WIDTH, 4), **prompts)
    found = {d.what: d for d in check.check(str(path), "text", TEXTS)}
    assert found.keys() == {"token ids", "pooled", "tokens"}
    assert all(d.fits for d in found.values())


def said_of(path, name, **changes):
    """What is said of the folder when these settings of a file are changed."""
    file = path / name
    settings = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(settings | changes))
    tower = towers.load(str(path), dtype="float32")
    return " ".join(tower.tower.notes)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("tokenizer_config.json", {"padding_side": "left"}, "padding_side is left"),
        ("tokenizer_config.json", {"model_input_names": ["input_ids"]}, "no attention_mask"),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "'2' is no length"),
        ("sentence_bert_config.json", {"max_seq_length": "10"}, "'10' is no length"),
    ],
)
def test_settings_that_are_not_followed_are_said(saved, name, changes, words):
    path = saved(Pooling(WIDTH, "mean"))
    assert words not in " ".join(towers.load(str(path)).tower.notes)
    assert words in said_of(path, name, **changes)
