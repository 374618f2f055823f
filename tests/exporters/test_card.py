"""Model cards: what the hub reads is valid, what people read has numbers, chance and limits."""

import dataclasses
import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from ape_jax.errors import UserError
from ape_jax.exporters.publish import card
from ape_jax.exporters.publish import facts as card_facts
from ape_jax.exporters.publish.facts import Facts
from ape_jax.runs.restore import restore


@pytest.fixture(scope="module")
def run(tiny_run):
    summary = json.loads((tiny_run / "summary.json").read_text())
    return dataclasses.replace(restore(tiny_run), summary=summary)


@pytest.fixture(scope="module")
def content(run):
    facts = Facts(license="cc-by-4.0", languages=("lv", "en"), datasets=("me/shapes",))
    return card_facts.completed(card.text(run, card.TORCH), facts, "shapes-clip")


def test_the_hubs_own_reader_takes_the_metadata(content, run):
    data = ModelCard(content, ignore_metadata_errors=False).data
    assert (data.license, data.language, data.datasets) == (
        "cc-by-4.0",
        ["lv", "en"],
        ["me/shapes"],
    )
    assert (data.library_name, data.pipeline_tag) == (
        "transformers",
        "zero-shot-image-classification",
    )
    assert {"ape_jax", "ape"} <= set(data.tags) and data.base_model is None
    recalls = {r.metric_name: r.metric_value for r in data.eval_results}
    assert len(recalls) == 6
    assert recalls["t2i R@10"] == pytest.approx(100 * run.summary["eval/shapes/t2i_r10"], abs=0.01)
    assert data.eval_results[0].dataset_name == "shapes (24 images, 48 captions)"


def test_the_metadata_is_plain_yaml_with_an_index_of_the_model(content):
    head = yaml.safe_load(content.split("---\n")[1])
    (entry,) = head["model-index"]
    assert entry["name"] == "image aligned with text"
    for result in entry["results"]:
        assert result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
        assert all(isinstance(metric["value"], float) for metric in result["metrics"])


def test_towers_and_pairs_on_the_hub_are_named(run):
    keys = {"image.tower": "hf:org/vit@main", "data.pairs": "hf:me/photos:train"}
    named = dataclasses.replace(run, config=run.config.replace(keys))
    data = ModelCard(card.text(named, card.JAX)).data
    assert (data.base_model, data.datasets) == (["org/vit"], ["me/photos"])


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("/home/me/photos/pairs.jsonl", "pairs.jsonl"),
        ("/home/me/my tower/", "my tower/"),
        ("part:rest:0.1:0:/home/me/pairs.csv", "part:rest:0.1:0:pairs.csv"),
        ("features:/data/i.npy,/data/t.npy", "features:i.npy,t.npy"),
        ("hf:org/name@main", "hf:org/name@main"),
        ("part:rest:0.1:0:hf:me/photos:train", "part:rest:0.1:0:hf:me/photos:train"),
    ],
)
def test_paths_of_this_machine_stay_here(spec, shown):
    assert card._public(spec) == shown


def test_figures_stand_beside_their_number_and_chance(content):
    table = " ".join(content.split())
    assert "| shapes (24 images, 48 captions) |" in table
    assert re.search(r"\| chance \| [\d. |]+ 41\.7 \| 12\.5 \|", table)
    assert "with 48 captions, t2i R@10 could as well be" in table


def test_pairs_that_are_gone_leave_their_number_unknown(run):
    gone = dataclasses.replace(run, config=run.config.replace({"data.eval": {"shapes": "no.csv"}}))
    text = card.text(gone, card.TORCH)
    assert "shapes (their number is not known any more)" in text and "| chance" not in text


def test_a_card_says_how_to_use_what_it_is_beside_and_what_it_lacks(content, run):
    assert 'DIR = "shapes-clip"' in content and "from_pretrained(DIR," in content
    assert "ape-jax push --export shapes-clip --repo USER/NAME" in content
    assert content.count("Not stated in this card: base_model.") == 1
    assert "## Limits" in content and "arXiv:2210.03927" in content
    assert str(run.source) not in content and "/tmp" not in content


def test_on_the_hub_it_names_the_repository_and_is_completed_again(content):
    facts = Facts(base_models=("org/vit", "org/text"))
    pushed = card_facts.completed(content, facts, "me/shapes", repo=True)
    assert 'DIR = "me/shapes"  # on the hub' in pushed and "ape-jax push" not in pushed
    assert "Not stated" not in pushed and card_facts.missing(pushed) == []


def test_what_transformers_does_not_load_is_fetched_first(run):
    pushed = card_facts.completed(card.text(run, card.ONNX, "onnx"), Facts(), "me/x", repo=True)
    assert 'DIR = snapshot_download("me/x")' in pushed


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(license="CC-BY-4"), "--license: 'CC-BY-4' .* did you mean 'cc-by-4.0'"),
        (Facts(languages=("Latvian",)), "--language: 'Latvian' is no code of ISO 639; write lv"),
        (Facts(datasets=("a/b/c",)), "--datasets: 'a/b/c' is no name on the hub"),
        (Facts(base_models=("my model",)), "--base_model: 'my model' is no name on the hub"),
    ],
)
def test_what_the_hub_would_refuse_is_one_sentence(facts, words):
    with pytest.raises(UserError, match=words):
        facts.check()


def test_a_head_that_is_no_yaml_is_one_sentence():
    with pytest.raises(UserError, match=r"README\.md: its head is no metadata"):
        card_facts.completed("---\na: [\n---\n\ntext\n", Facts(), "x")
