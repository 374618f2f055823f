"""Layers that the pairs choose, from the config to the record of a run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ape_jax
from ape_jax import config as config_lib
from ape_jax.align.layers import Reading, choice
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.runs.directory import layers_record, workdir
from ape_jax.training import extraction, loop
from ape_jax.training.input import opened
from ape_jax.training.layers import settled
from ape_jax.training.layers.question import ask, domain_digest, sampled

OPEN = {"image.layer": "auto", "text.layer": "auto", "image.pooling": "auto"}
OPEN |= {"text.pooling": "auto", "embed": 8, "image.head.name": "linear"}
OPEN |= {"text.head.name": "linear", "train.steps": 2, "train.checkpoint_every": 1}
OF_MLP = ("text.head.depth", "text.head.width")


def with_open(config, **settings):
    flat = {**config_lib.flatten(config), **OPEN, **settings}
    return config_lib.resolve({k: v for k, v in flat.items() if k not in OF_MLP})


@pytest.fixture
def resolved(tiny_config):
    def make(**settings):
        return with_open(tiny_config, **settings)

    return make


@pytest.fixture(scope="module")
def trained(new_tiny_config, tmp_path_factory):
    """A run whose layers were chosen by retrieval, as with more concepts than it has."""
    path = tmp_path_factory.mktemp("chosen") / "run"
    config = with_open(new_tiny_config())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "LEAST_CONCEPTS", 4)
        loop.train_and_evaluate(config, path)
    return path, config


def test_the_config_on_record_holds_what_was_chosen(trained):
    path, _ = trained
    record = json.loads((path / "layers.json").read_text())
    config = json.loads((path / "config.json").read_text())
    assert {key: config[key] for key in record["chosen"]} == record["chosen"]
    assert set(record["chosen"]) == set(list(OPEN)[:4]) and record["by"] == "retrieval"
    assert "auto" not in map(str, record["chosen"].values())
    assert len(record["neighbours"]) == 3 * 3 and record["seconds"]["pass"] > 0
    assert ape_jax.load(path).encode_text(["a red square"]).shape == (1, 8)


def test_another_start_takes_the_choice_from_the_record(trained, monkeypatch):
    path, config = trained
    (path / "summary.json").unlink()

    def fail(*_):
        raise AssertionError("it is on record")

    monkeypatch.setattr("ape_jax.training.layers.settle.choice_record", fail)
    before = (path / "layers.json").read_bytes()
    summary = loop.train_and_evaluate(config, path)
    assert summary["step"] == 2 and (path / "layers.json").read_bytes() == before


def test_a_record_of_other_pairs_is_no_answer(trained):
    path, _ = trained
    asked = json.loads((path / "layers.json").read_text())["asked"]
    assert layers_record.read(path, asked)["asked"] == asked
    assert layers_record.read(path, {**asked, "pairs": "other"}) is None
    assert layers_record.read(path / "nowhere", asked) is None


def test_vectors_are_those_of_the_towers_at_each_layer(resolved):
    config = resolved(**{"cache.dtype": "float32"})
    config, sources = opened.settled(config)
    asked = ask(config, sources.train, FeatureStore())
    tower, params = build.load_tower(config, "text")
    texts = list(sources.train.caption_table().texts)
    batch = jax.tree.map(jnp.asarray, tower.prepare(texts))
    for layer, pooling in ((0, "mean"), (1, "cls"), (-1, "mean+cls")):
        want = tower.apply(params, batch, layer=layer, pooling=pooling).pooled
        got = asked.text.vectors.read(Reading((layer,), pooling))
        np.testing.assert_allclose(got, want, atol=2e-5)
    assert asked.image.vectors.read(Reading((1, -1), "cls+mean")).shape == (24, 4 * 32)


def test_a_side_that_is_given_is_read_as_it_is(resolved):
    settings = {"image.layer": (0, -1), "image.pooling": "mean", "text.pooling": "mean"}
    config, sources = opened.settled(resolved(**settings))
    asked = ask(config, sources.train, FeatureStore())
    assert asked.image.vectors.only == Reading((0, -1), "mean") and not asked.image.is_open
    assert asked.image.vectors.read(asked.image.usual).shape == (24, 64)
    config, record = settled(config, sources.train)
    assert set(record["chosen"]) == {"text.layer"} and config.image.layer == (0, -1)


def test_the_sample_is_of_the_pairs_that_are_trained_on(resolved):
    config, sources = opened.settled(resolved(**{"data.sample": 10, "train.batch": 8}))
    chosen = sampled(config, sources.train)
    order = np.random.default_rng([config.seed, 24]).permutation(24)
    assert list(chosen.ids()) == [sources.train[int(i)].id for i in np.sort(order[:10])]


def test_each_file_is_a_domain(resolved, tiny, tmp_path):
    lines = (tiny / "pairs.jsonl").read_text().splitlines()
    halves = [tiny / f"half{i}.jsonl" for i in range(2)]
    for i, half in enumerate(halves):
        half.write_text("\n".join(lines[i::2]) + "\n")
    pairs = "::".join(map(str, halves))
    config, sources = opened.settled(resolved(**{"data.pairs": pairs, "data.domain": "source"}))
    asked = ask(config, sources.train, FeatureStore())
    assert asked.domain.tolist() == [0] * 12 + [1] * 12
    assert settled(config, sources.train)[0].data.domain == ""  # Nothing else asks for it.
    config = resolved(**{"data.domain": "source"})
    with pytest.raises(UserError, match=r"config\.data\.domain: 'source' tells files apart"):
        ask(config, opened.sources(config).train, FeatureStore())


def test_a_column_says_the_domain(resolved, tiny, tmp_path):
    rows = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    styled = tiny / "styled.jsonl"

    def write(styles):
        lines = [json.dumps({**row, "style": style}) for row, style in zip(rows, styles)]
        styled.write_text("\n".join(lines) + "\n")

    write(["flat", "round"] * 12)
    over = {"data.pairs": str(styled), "data.domain": "style"}
    config, sources = opened.settled(resolved(**over))
    assert ask(config, sources.train, FeatureStore()).domain.tolist() == [0, 1] * 12
    assert domain_digest(config, sources.train)
    before = settled(config, sources.train)[1]["asked"]
    write(["flat"] * 12 + ["round"] * 12)
    config, sources = opened.settled(resolved(**over))
    assert settled(config, sources.train)[1]["asked"] != before
    write(["flat"] * 24)
    config, sources = opened.settled(resolved(**over))
    with pytest.raises(UserError, match=r"data\.domain: the column 'style' .* 'flat' alone"):
        ask(config, sources.train, FeatureStore())


def test_extraction_chooses_and_the_training_after_it_takes_that(resolved, tmp_path):
    config = resolved()
    extraction.extract(config, tmp_path / "run")
    record = json.loads((tmp_path / "run/layers.json").read_text())
    loop.train_and_evaluate(config.replace({"cache.missing": "error"}), tmp_path / "run")
    assert (
        workdir.read_config(tmp_path / "run").image.layer
        == layers_record.values(record)["image.layer"]
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"image.tune": "full", "image.standardize": False},
            r"config\.image\.layer: 'auto' compares the layers of two frozen towers, found image",
        ),
        ({"image.tower": "torch:hf:x"}, "of towers that JAX runs, found image.tower='torch:hf:x'"),
        ({"start.run": "elsewhere"}, "'auto' is for fresh heads, and those of start.run"),
    ],
)
def test_what_cannot_be_chosen_is_one_sentence(resolved, settings, words):
    with pytest.raises(UserError, match=words):
        resolved(**settings)


def test_what_chooses_nothing_says_so(resolved):
    with pytest.raises(UserError, match="'auto' is chosen by the pairs when a training or an"):
        build.make_model(resolved(), build.load_towers(resolved()))


@pytest.mark.parametrize("key", list(OPEN)[:4])
def test_auto_on_the_command_line(key):
    config = config_lib.default()
    config_lib.override(config, {key: "auto"})
    group, name = key.split(".")
    assert config[group][name] == "auto"


def test_domains_without_a_choice_are_refused(tiny_config):
    flat = {**config_lib.flatten(tiny_config), "data.domain": "source"}
    with pytest.raises(UserError, match=r"config\.data\.domain: it has an effect where"):
        config_lib.resolve(flat)
