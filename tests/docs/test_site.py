"""The site is built without a warning, is complete, asks no other host, and its search answers."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.docs.site_search import SiteSearch

ROOT = pathlib.Path(__file__).parents[2]
QUESTIONS = json.loads((pathlib.Path(__file__).parent / "questions.json").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning, such as a link or an anchor that is not there, is an error."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_everything_generated_is_filled_in(site):
    for page in site.rglob("*.html"):
        assert not re.search(r"\{\{ \w+ \}\}", page.read_text(encoding="utf-8")), page


def test_it_reads_nothing_from_other_hosts(site):
    loads = re.compile(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"?(https?:)?//[^\s>]*")
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text(encoding="utf-8")), page


def test_every_registered_component_is_in_the_reference(site):
    from ape_jax.config import Config, components, schema
    from ape_jax.exporters.formats import EXPORTS
    from ape_jax.terminal.catalogue import COMMANDS
    from ape_jax.towers.family import FAMILIES

    for page, names in {
        "heads": components.HEADS,
        "losses": components.LOSSES,
        "closed-forms": components.CLOSED_FORMS,
        "export-formats": EXPORTS,
        "commands": COMMANDS,
        "config": schema.keys(Config),
        "towers": [family.title for family in FAMILIES.values()],
    }.items():
        text = (site / "reference" / page / "index.html").read_text(encoding="utf-8")
        assert [name for name in names if name not in text] == []


@pytest.fixture(scope="module")
def search(site):
    return SiteSearch(site)


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked["question"])
def test_the_search_finds_the_answer(search, asked):
    assert asked["page"] in search.pages(asked["question"])[:3]


def test_there_are_forty_questions_about_pages_of_all_kinds():
    assert len({asked["question"] for asked in QUESTIONS}) == len(QUESTIONS) >= 40
    kinds = {asked["page"].split("/")[0] for asked in QUESTIONS}
    assert {"tutorials", "how-to", "explanation", "reference", "results"} <= kinds
