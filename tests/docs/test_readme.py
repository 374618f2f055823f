"""README, CHANGELOG and CONTRIBUTING: short, and what they link to is there."""

import pathlib
import re
import tomllib

import pytest
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

ROOT = pathlib.Path(__file__).parents[2]


def links(path):
    """Addresses of all links and pictures of a page that lead to files here."""
    tree = SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(path.read_text("utf-8")))
    found = [
        str(node.attrs.get("href") or node.attrs.get("src"))
        for node in tree.walk()
        if node.type in ("link", "image")
    ]
    return [address for address in found if not re.match(r"\w+:", address)]


def anchors(path):
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"(?m)^#+ (.*)$", path.read_text("utf-8"))
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s+", "-", heading) for heading in plain}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_what_it_links_to_is_there(name):
    for address in links(ROOT / name):
        target, _, anchor = address.partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), address
        assert not anchor or anchor in anchors(path), address


def test_the_readme_is_short_and_leads_to_the_documentation():
    assert (ROOT / "README.md").stat().st_size <= 9 * 1024
    assert len([address for address in links(ROOT / "README.md") if "docs/" in address]) >= 20


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"(?m)^## \[?([^\]\s]+)", text)
    assert versions[0] == "Unreleased"
    kinds = set(re.findall(r"(?m)^### (\w+)$", text))
    assert kinds and kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_extra_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    page = (ROOT / "docs/how-to/install.md").read_text("utf-8")
    rows = "".join(line for line in page.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`([\w-]+)`", rows)) == set(project["optional-dependencies"])
