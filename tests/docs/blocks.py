"""Code blocks and commands of the documentation."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess

from markdown_it import MarkdownIt

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = ("python", "bash", "json", "text")
_COMMAND = re.compile(r"(?:ape-jax|python -m ape_jax|python tests|pytest|launch/)\S*( .*)?")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
      page: path seen from the repository.
      line: of the file, from 1.
      language: `python`, `bash`, `json` or `text`.
      needs: what it needs that is not here, "" where it can run: `title="Needs a GPU"`.
      content: the code.
    """

    page: str
    line: int
    language: str
    needs: str
    content: str


def blocks(path: pathlib.Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type == "fence":
            language, _, rest = token.info.partition(" ")
            title = re.fullmatch(r'title="(.*)"', rest)
            assert not rest or title, f"{path}: {token.info}"
            page = path.relative_to(ROOT).as_posix()
            needs = title[1] if title else ""
            found.append(Block(page, token.map[0] + 1, language, needs, token.content))
    return found


def inline_commands(path: pathlib.Path) -> list[str]:
    """Commands within sentences and tables, `pytest tests/towers`; not those cut by `...`."""
    tokens = MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8"))
    codes = [c.content for t in tokens for c in t.children or () if c.type == "code_inline"]
    return [code for code in codes if _COMMAND.fullmatch(code) and " " in code]


def command_lines(script: str) -> list[list[str]]:
    """The words of each command of a shell script, as bash splits and expands them."""
    joined = re.sub(r"\\\n\s*", " ", script)
    lines = [line for line in joined.splitlines() if line.strip() and line[0] != "#"]
    shell = "words() { printf '%s\\0' \"$@\"; printf '\\n'; }\n"
    shell += "".join(f"words {re.sub(r' && ', ' ; words ', line)}\n" for line in lines)
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]
