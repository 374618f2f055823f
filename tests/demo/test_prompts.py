"""Class names and templates against open_clip's own."""

import importlib.util
from pathlib import Path

import pytest

from ape_jax.demo import prompts
from ape_jax.errors import UserError


@pytest.fixture(scope="module")
def zero_shot_metadata():
    """open_clip's module alone: the package around it wants torchvision."""
    (folder,) = importlib.util.find_spec("open_clip").submodule_search_locations
    spec = importlib.util.spec_from_file_location("_", Path(folder) / "zero_shot_metadata.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_classnames_are_those_of_open_clip(zero_shot_metadata):
    names = prompts.imagenet_classnames()
    assert len(names) == 1000
    assert names == tuple(zero_shot_metadata.IMAGENET_CLASSNAMES)


@pytest.mark.parametrize(
    "name, count, constant",
    [
        ("openai", 80, "OPENAI_IMAGENET_TEMPLATES"),
        ("open_clip_simple", 7, "SIMPLE_IMAGENET_TEMPLATES"),
    ],
)
def test_templates_give_what_the_lambdas_give(zero_shot_metadata, name, count, constant):
    templates = prompts.templates(name)
    assert len(templates) == count
    lambdas = getattr(zero_shot_metadata, constant)
    assert [t.format("{cat}") for t in templates] == [function("{cat}") for function in lambdas]


def test_unknown_templates_are_a_user_error():
    with pytest.raises(UserError, match="'x'; write one of openai, open_clip_simple"):
        prompts.templates("x")


SOURCE = """
OPENAI_IMAGENET_TEMPLATES = (lambda c: f'a {{x}} {c}.',)
SIMPLE_IMAGENET_TEMPLATES = (%s,)
IMAGENET_CLASSNAMES = ("a", "b")
"""


def test_braces_in_a_template_stay_braces():
    constants = prompts.parse_constants(SOURCE % "'plain'")
    assert constants["OPENAI_IMAGENET_TEMPLATES"][0].format("cat") == "a {x} cat."
    assert constants["IMAGENET_CLASSNAMES"] == ("a", "b")


@pytest.mark.parametrize("code", ["f(1)", "1", "lambda c: c", "lambda c: f'{c.x}'"])
def test_anything_else_is_refused_and_never_run(code):
    with pytest.raises(UserError, match=r"zero_shot_metadata.py:3 holds"):
        prompts.parse_constants(SOURCE % code)


def test_missing_constants_are_named():
    with pytest.raises(UserError, match="lacks IMAGENET_CLASSNAMES, SIMPLE"):
        prompts.parse_constants("OPENAI_IMAGENET_TEMPLATES = ()")
