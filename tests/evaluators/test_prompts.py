"""Templates and class names, from names and from files."""

import pytest

from ape_jax.demo import prompts as fetched
from ape_jax.errors import UserError
from ape_jax.evaluators import prompts


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_none_is_the_bare_name():
    assert prompts.resolve_templates("none") == ("{}",)


@pytest.fixture
def no_cache(monkeypatch):
    """Nothing that has to be fetched can be had."""

    def refuse(*_):
        raise UserError("asked for a package")

    monkeypatch.setattr(fetched, "prepare", refuse)


def test_simple_needs_no_network_and_open_clips_own_do(no_cache):
    assert len(set(prompts.resolve_templates("simple"))) == 7
    with pytest.raises(UserError, match="asked for a package"):
        prompts.resolve_templates("open_clip_simple")


def test_a_list_of_templates_is_taken_as_it_is():
    assert prompts.resolve_templates(["a {}", "{} {c}"]) == ("a {}", "{} {c}")


@pytest.mark.parametrize(
    "templates, message",
    [
        ([], "templates: the list is empty"),
        (["{}", "cat"], "item 2: .*0 times"),
        ([3], "item 1: expected a text, found int"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_list_is_one_sentence(templates, message):
    with pytest.raises(UserError, match=message):
        prompts.resolve_templates(templates)


@pytest.mark.parametrize("name, count", [("openai", 80), ("simple", 7), ("open_clip_simple", 7)])
def test_named_templates_have_one_place_each(name, count):
    templates = prompts.resolve_templates(name)
    assert len(templates) == count
    assert all(template.count("{}") == 1 for template in templates)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_templates_of_a_file_keep_their_order(tmp_path, end):
    path = write(tmp_path / "t.txt", "ein Bild von {}.\n{c} {}" + end)
    assert prompts.resolve_templates(str(path)) == ("ein Bild von {}.", "{c} {}")


@pytest.mark.parametrize("line, times", [("a cat", 0), ("", 0), ("{} and {}", 2), ("{c}", 0)])
def test_a_template_without_exactly_one_place_is_refused_with_its_line(tmp_path, line, times):
    path = write(tmp_path / "t.txt", f"a {{}}\n{line}\n{{}}")
    with pytest.raises(UserError, match=rf"t\.txt:2: .*{times} times"):
        prompts.resolve_templates(path)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(
        UserError, match=r'--templates="opena" is neither one of none, simple, openai'
    ):
        prompts.resolve_templates("opena", key="--templates")


def test_class_names_are_read_stripped_and_in_order(tmp_path):
    path = write(tmp_path / "c.txt", b"\xef\xbb\xbfcat\n  set {1, 2} \nH\xc3\xbchner\n")
    assert prompts.read_classnames(path) == ("cat", "set {1, 2}", "Hühner")


def test_an_empty_or_repeated_class_name_is_refused_with_its_line(tmp_path):
    with pytest.raises(UserError, match=r"c\.txt:2: the class name is empty"):
        prompts.read_classnames(write(tmp_path / "c.txt", "cat\n  \ndog"))
    with pytest.raises(UserError, match=r'c\.txt:3: the class name "cat" stands in line 1 too'):
        prompts.read_classnames(write(tmp_path / "c.txt", "cat\ndog\ncat \n"))


@pytest.mark.parametrize("text, message", [("", "empty"), (b"\xff\xfe", "not UTF-8")])
def test_an_unreadable_list_is_refused(tmp_path, text, message):
    path = write(tmp_path / "c.txt", text)
    for read in (prompts.read_classnames, prompts.resolve_templates):
        with pytest.raises(UserError, match=message):
            read(path)


def test_a_missing_or_huge_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'classnames=".*" is not a file'):
        prompts.read_classnames(tmp_path)
    monkeypatch.setattr(prompts, "_MAX_BYTES", 3)
    with pytest.raises(UserError, match="has 4 bytes"):
        prompts.read_classnames(write(tmp_path / "c.txt", "cats"))
