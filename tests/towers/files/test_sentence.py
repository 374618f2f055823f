"""Reading of modules.json: what is understood, what is refused, and by which sentence."""

import json

import pytest

from ape_jax.errors import UserError
from ape_jax.towers.files import sentence

BASE = "sentence_transformers.models."


def write(root, *modules, **files):
    """A folder with these modules, (type, path, settings) each."""
    entries = []
    for place, (kind, path, settings) in enumerate(modules):
        kind = kind if "." in kind else BASE + kind
        entries.append({"idx": place, "name": str(place), "path": path, "type": kind})
        folder = root / path
        folder.mkdir(exist_ok=True)
        if settings is not None:
            (folder / "config.json").write_text(json.dumps(settings))
    (root / "modules.json").write_text(json.dumps(entries))
    for name, value in files.items():
        (root / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return root


BODY = ("Transformer", "", None)
POOLING = ("Pooling", "1_Pooling", {"pooling_mode_mean_tokens": True})


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls+mean"),
        ({"pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "mean_sqrt_len_tokens", "pooling_mode_cls_token": True}, "mean_sqrt_len"),
        ({"pooling_mode": ["weightedmean", "max"]}, "weightedmean+max"),
        ({}, "mean"),
    ],
)
def test_modes_by_switches_and_by_the_newer_key(tmp_path, settings, pooling):
    assert sentence.find(write(tmp_path, BODY, ("Pooling", "p", settings))).pooling == pooling


def test_a_folder_below_belongs_to_its_modules(tmp_path):
    root = write(tmp_path, ("Transformer", "0_Transformer", None), POOLING)
    other = root / "other"
    other.mkdir()
    assert sentence.find(root / "0_Transformer").root == root
    assert sentence.find(other) is None
    assert sentence.find(root) is None  # The tower is not here.


def test_a_pooling_folder_without_modules_json(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert sentence.find(tmp_path).pooling == "cls"


def test_dropout_and_what_divides_by_the_length_at_the_end_are_no_head(tmp_path):
    root = write(tmp_path, BODY, ("Dropout", "d", {}), POOLING, ("Normalize", "n", None))
    found = sentence.find(root)
    assert (found.head(8), found.unit) == (None, True)


def test_code_of_the_folder_is_not_run_and_said(tmp_path, capsys):
    root = write(tmp_path, ("custom_st.Transformer", "", None), POOLING)
    with sentence.reading.tower("folder"):
        assert sentence.find(root).pooling == "mean"
    assert (
        "modules.json names custom_st.Transformer, whose code is not run" in capsys.readouterr().err
    )


DENSE = {"in_features": 8, "out_features": 4}
REFUSED = {
    "another first": ([("StaticEmbedding", "", None)], {}, "begins with StaticEmbedding"),
    "CLIP": ([("CLIPModel", "0_CLIPModel", None)], {}, "CLIPModel.*torch:st:"),
    "nothing": ([], {}, "begins with nothing"),
    "router": ([BODY, POOLING, ("Router", "r", {})], {}, "has the module Router.*torch:st:"),
    "two poolings": ([BODY, POOLING, ("Pooling", "2", {})], {}, "has the module Pooling"),
    "order": ([BODY, ("Dense", "2", DENSE), POOLING], {}, "module Dense, before or without"),
    "tokens": (
        [BODY, POOLING, ("Dense", "2", {**DENSE, "module_input_name": "token_embeddings"})],
        {},
        "module Dense on 'token_embeddings'",
    ),
    "task": (
        [BODY, POOLING],
        {"sentence_bert_config": {"transformer_task": "fill-mask"}},
        "the task 'fill-mask'",
    ),
    "chat": (
        [BODY, POOLING],
        {"sentence_bert_config": {"modality_config": {"message": {}, "text": sentence._TEXT}}},
        "'modality_config' is another",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_sentence_transformers_itself_must_run(tmp_path, name):
    modules, files, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        sentence.find(write(tmp_path, *modules, **files))


DAMAGED = {
    "no list": ([], {"modules": "{}"}, "a list of modules"),
    "no path": ([], {"modules": '[{"type": "x", "path": 3}]'}, "a list of modules"),
    "a path above": ([], {"modules": [{"type": "x", "path": "../x"}]}, "a folder below"),
    "no mode": ([BODY, ("Pooling", "p", {"pooling_mode": "median"})], {}, "'pooling_mode' is"),
    "a mode of another type": ([BODY, ("Pooling", "p", {"pooling_mode": 3})], {}, "write one of"),
    "twice": ([BODY, ("Pooling", "p", {"pooling_mode": ["mean", "mean"]})], {}, "write one of"),
    "no settings": ([BODY, ("Pooling", "p", None)], {}, "config.json does not exist"),
    "no size": ([BODY, POOLING, ("Dense", "2", {})], {}, "'out_features' is None"),
    "a size": ([BODY, POOLING, ("Dense", "2", {"out_features": 2**40})], {}, "'out_features' is"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_one_sentence(tmp_path, name):
    modules, files, message = DAMAGED[name]
    with pytest.raises(UserError, match=message):
        sentence.find(write(tmp_path, *modules, **files))


def test_a_norm_of_another_width_is_an_error(tmp_path):
    root = write(tmp_path, BODY, POOLING, ("LayerNorm", "2", {"dimension": 5}))
    with pytest.raises(UserError, match="a LayerNorm of 5 numbers follows vectors of 8"):
        sentence.find(root).head(8)
