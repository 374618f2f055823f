"""Damaged files of towers: each is one sentence, or changes nothing of what the tower gives."""

import contextlib
import json
import resource
import signal

import numpy as np
import pytest
from safetensors.numpy import save_file

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.towers.files import names
from ape_jax.towers.text.bert import bert
from ape_jax.towers.vision.vit import vit
from tests.towers import damage

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "layer_norm_eps": 1e-6, "hidden_act": "gelu"}
IMAGE = SIZES | {"model_type": "vit", "image_size": 16, "patch_size": 8, "num_channels": 3}
TEXT = SIZES | {
    "model_type": "bert",
    "vocab_size": 60,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
PIXELS = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
}
BESIDE = {
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 12,
        "pad_token": "[PAD]",
        "truncation_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
    },
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "include_prompt": True,
    },
    "sentence_bert_config.json": {"max_seq_length": 10, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": "w1 w2 "},
        "default_prompt_name": "query",
    },
}
KINDS = {"image": (IMAGE, vit.NAMES), "text": (TEXT, bert.NAMES)}


@pytest.fixture(scope="module")
def good(tmp_path_factory, text_reference):
    """A whole directory of each kind."""
    made = {}
    for kind, (config, table) in KINDS.items():
        path = made[kind] = tmp_path_factory.mktemp(kind)
        shapes = names.flat_shapes(towers.abstract_params(towers.build(config)[0]))
        rng = np.random.default_rng(0)
        flat = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
        params = names.unflatten_dict(flat, sep="/")
        save_file(names.to_file(table, params, heads=2), path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(config))
    (made["image"] / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    text_reference.write_tokenizer(made["text"])
    for name, content in BESIDE.items():
        (made["text"] / name).parent.mkdir(exist_ok=True)
        (made["text"] / name).write_text(json.dumps(content))
    return made


SAMPLES = {
    "image": [np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)],
    "text": ["w3 w4 w5", "W6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18"],
}


def outputs(path, kind):
    """All that decides what a tower gives, and what was said of its files."""
    tower, _ = towers.read(str(path), kind=kind)
    batch = {k: v.tolist() for k, v in tower.prepare(SAMPLES[kind]).items()}
    return repr((tower.config, batch, tower.digest)), tower.notes


@contextlib.contextmanager
def in_time(seconds):
    def late(*_):
        raise TimeoutError("it takes too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path, kind):
    """`outputs`, or the sentence that refuses the directory."""
    try:
        with in_time(10):
            return outputs(path, kind)
    except UserError as error:
        said = str(error)
        assert "\n" not in said and len(said) < 2000, said[:300]
        return said


FILES = [("image", name) for name in ("config.json", "preprocessor_config.json")]
FILES += [("text", name) for name in ("config.json", "tokenizer.json", *BESIDE)]
MOST = {"tokenizer.json": 120}  # Each takes transformers a while.
NULL = "null, as if the key were not there"
OWN = "another that it may have"
# Of a file and its key: values that change what the tower gives, and why nothing is said of it.
ALLOWED = {
    ("preprocessor_config.json", "do_rescale"): {None: "transformers reads null as false"},
    ("preprocessor_config.json", "do_normalize"): {None: "transformers reads null as false"},
    ("tokenizer.json", "pre_tokenizer"): {None: "a tokenizer may have none"},
    ("tokenizer.json", "post_processor"): {None: "a tokenizer may have none"},
    ("tokenizer_config.json", "tokenizer_class"): {None: NULL},
    ("sentence_bert_config.json", "max_seq_length"): {None: NULL, 10**30: "without a limit"},
    ("sentence_bert_config.json", "do_lower_case"): {True: OWN},
    ("1_Pooling/config.json", "pooling_mode_cls_token"): {True: OWN},
    ("1_Pooling/config.json", "include_prompt"): {True: OWN},
    ("config_sentence_transformers.json", "prompts/query"): {"x": OWN, "": OWN},
    ("config_sentence_transformers.json", "default_prompt_name"): {None: NULL},
}


def taken_files(root, kind, name, to):
    """Labels of the files in the place of one that are taken as if they were right."""
    outputs(root, kind)
    taken = []
    for label, change in (*damage.no_file(name), *damage.contents(root, name, seed=len(name))):
        path = damage.copied(root, to)
        change(path)
        found = outcome(path, kind)  # A flipped byte may leave another right file.
        if not label.startswith("flip") and not isinstance(found, str):
            taken.append(label)
    return taken


def taken_values(root, kind, name, to, allowed, most=None):
    """Keys and values that change what a tower gives without a word, but for those allowed."""
    whole, notes = outputs(root, kind)
    told = {note.partition(": ")[2] for note in notes}
    taken = []
    for key, value, change in damage.mutations(root, name, most=most):
        path = damage.copied(root, to)
        change(path)
        found = outcome(path, kind)
        if isinstance(found, str) or found[0] == whole:
            continue
        is_said = {note.partition(": ")[2] for note in found[1]} - told
        is_allowed = any(
            type(v) is type(value) and v == value for v in allowed.get((name, key), ())
        )
        if not is_said and not is_allowed:
            taken.append((key, value))
    return taken


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_file_that_is_none_or_is_damaged_is_one_sentence(kind, name, good, tmp_path):
    assert not taken_files(good[kind], kind, name, tmp_path / "tower")


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_value_of_another_kind_is_one_sentence_or_changes_nothing(kind, name, good, tmp_path):
    assert not taken_values(good[kind], kind, name, tmp_path / "tower", ALLOWED, MOST.get(name))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # kB.


def test_there_are_enough_of_them(good):
    """As the bar of hostile inputs asks."""
    count = 0
    for kind, name in FILES:
        count += len([*damage.no_file(name), *damage.contents(good[kind], name, seed=0)])
        count += len([*damage.mutations(good[kind], name, MOST.get(name))])
    assert count > 1000
