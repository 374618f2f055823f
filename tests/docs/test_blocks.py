"""Blocks of README and docs: Python runs, commands are what the real ones take, some run too.

A block with `title="Needs ..."` cannot run here. Its Python is compiled and its commands are
checked like all others.
"""

import ast
import json
import os
import shutil
import subprocess

import pytest

from ape_jax.config.components import LOSSES
from ape_jax.parallel import mesh as mesh_lib
from tests.docs import commands
from tests.docs.blocks import LANGUAGES, PAGES, ROOT, blocks, command_lines, inline_commands
from tests.docs.world import write_world

BLOCKS = [block for path in PAGES for block in blocks(path)]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
# Pages whose commands run in the tests as well: the cheap ones, each about one thing.
RUN = {"docs/tutorials/own-features.md", "docs/how-to/search-a-folder.md"}
# And with `launch/test.sh all`: all that the page says, one after another.
RUN_SLOWLY = {"docs/tutorials/your-own-photos.md"}


def of(page, language):
    return [b for b in BLOCKS if b.page == page and b.language == language]


def ids(block):
    return f"{block.page}:{block.line}"


def test_blocks_are_of_known_languages_and_say_what_they_need():
    for block in BLOCKS:
        assert block.language in LANGUAGES, ids(block)
        assert not block.needs or block.needs.startswith("Needs "), ids(block)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "json"], ids=ids)
def test_json_is_json(block):
    for line in block.content.splitlines():
        json.loads(line)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "bash"], ids=ids)
def test_commands_are_what_they_call_take(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in command_lines(block.content):
        commands.check(words)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_commands_in_sentences_are_what_they_call_take(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in inline_commands(path):
        for words in command_lines(line):
            if not {"...", "COMMAND", "ape_jax.MODULE"} & set(words):
                commands.check(words, mentioned=True)


@pytest.fixture(scope="module")
def world(tiny, tiny_run, tmp_path_factory):
    """A folder with the files that the pages speak of, and a stand-in for the hub."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, tiny, tiny_run)
    return folder


def enter(folder, monkeypatch):
    """Makes it the current folder, with the hub's stand-in and one device, as most users have."""
    import huggingface_hub.constants as hub

    mesh = mesh_lib.make_mesh(1)
    monkeypatch.setattr(mesh_lib, "make_mesh", lambda devices=None, fsdp=1: mesh)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    for name, value in {
        "APE_JAX_CACHE": str(folder / "cache"),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def registered():
    """Takes away again the loss that a page registers: other tests look at all of them."""
    before = set(LOSSES)
    yield
    for name in set(LOSSES) - before:
        LOSSES.unregister(name)


def run_page(page, folder, with_commands):
    space = {}
    for block in [b for b in BLOCKS if b.page == page]:
        code = block.language == "python" and compile(
            "\n" * block.line + block.content, str(ROOT / page), "exec"
        )
        if block.needs:
            continue
        if code:
            exec(code, space)
        elif block.language == "bash" and with_commands:
            done = subprocess.run(
                ["bash", "-e", "-c", block.content],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=280,
            )
            assert done.returncode == 0, f"{ids(block)}\n{done.stdout}\n{done.stderr}"


def pages_that_run():
    for name in NAMES:
        if any(b.language == "python" or name in RUN for b in BLOCKS if b.page == name):
            yield name


@pytest.mark.parametrize("page", pages_that_run())
def test_python_runs(page, world, monkeypatch):
    enter(world, monkeypatch)
    run_page(page, world, with_commands=page in RUN)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(RUN_SLOWLY))
def test_the_whole_page_runs(page, tiny, tiny_run, tmp_path, monkeypatch):
    write_world(tmp_path, tiny, tiny_run)
    shutil.rmtree(tmp_path / "runs")  # The page makes its own.
    enter(tmp_path, monkeypatch)
    run_page(page, tmp_path, with_commands=True)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=ids)
def test_python_parses_and_its_lines_fit(block):
    ast.parse(block.content)
    assert max(map(len, block.content.splitlines())) <= 120
