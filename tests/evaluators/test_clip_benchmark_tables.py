"""Names and templates out of an installed clip_benchmark, as its own command fills them."""

import importlib.util
import json
from pathlib import Path

import pytest

from ape_jax.errors import UserError
from ape_jax.evaluators import clip_benchmark_tables, prompts


def table(file):
    (folder,) = importlib.util.find_spec("clip_benchmark").submodule_search_locations
    return json.loads((Path(folder) / "datasets" / file).read_text())


@pytest.mark.parametrize(("language", "name"), [("en", "pets"), ("jp", "imagenet1k")])
def test_prompts_are_those_that_clip_benchmark_makes(language, name):
    spec = f"clip_benchmark:{name}" + ("" if language == "en" else f"/{language}")
    names, templates = prompts.resolve_classnames(spec), prompts.resolve_templates(spec)
    theirs = table(f"{language}_zeroshot_classification_templates.json")[name]
    assert list(names) == table(f"{language}_classnames.json")[name]
    expected = [template.format(c=names[0]) for template in theirs]
    assert [prompts.fill(template, names[0]) for template in templates] == expected


def test_all_of_its_templates_can_be_read():
    for name in table("en_zeroshot_classification_templates.json"):
        templates = prompts.resolve_templates(f"clip_benchmark:{name}")
        assert all(template.count("{}") == 1 for template in templates)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("clip_benchmark:petz", r"no classnames for 'petz'; write one of .*pets"),
        ("clip_benchmark:pets/xx", r"in 'xx'; write clip_benchmark:NAME/LANGUAGE with .*\bjp\b"),
        ("clip_benchmark:../../x/../..", r"in '\.\./x"),
    ],
)
def test_an_unknown_table_lists_what_there_is(spec, words):
    with pytest.raises(UserError, match=rf"--classnames.*{words}"):
        prompts.resolve_classnames(spec, key="--classnames")


def test_without_the_package_the_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(clip_benchmark_tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; run .*ape_jax\[judges\]"):
        prompts.resolve_templates("clip_benchmark:pets")


def test_imagenet_needs_no_package():
    assert prompts.resolve_classnames("imagenet")[0] == "tench"
