"""What the documentation reads from the package itself: a hook of MkDocs.

A line `{{ NAME }}` in a page stands for what the function of this name below makes of the schema,
the registries and the recipes, so that no page falls behind them. CHANGELOG.md and CONTRIBUTING.md
are shown as they are.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
COPIED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that lie at the top of the repository."""
    for page, source in COPIED.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in what is generated.

    Raises:
      KeyError: for a name that no function has.
    """
    return re.sub(r"(?m)^\{\{ (\w+) \}\}$", lambda match: GENERATED[match[1]](), markdown)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a bar within a cell does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", "&#124;").replace("\n", " ") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _value(value: object) -> str:
    return f"`{value!r}`"


def _names(names: Iterable[str], prefix: str = "") -> str:
    return ", ".join(f"`{prefix}{name}`" for name in names)


def config_keys() -> str:
    """Every key of a run, section by section."""
    from ape_jax.config import Config, help, schema

    groups: dict[str, list[list[str]]] = {}
    harmless = schema.harmless(Config)
    for row in help.rows():
        only = f" With {_names(row.components)}." if row.components else ""
        free = "yes" if row.key in harmless else ""
        cells = [f"`{row.key}`", f"{row.why}{only}", _value(row.default), row.takes, free]
        groups.setdefault(row.group or "the run itself", []).append(cells)
    head = ["key", "what it does", "default", "takes", "may change"]
    return "\n".join(f"## {name}\n\n{table(head, rows)}" for name, rows in groups.items())


def recipes() -> str:
    """What each recipe says of itself."""
    parts = []
    for path in sorted((ROOT / "ape_jax/recipes").glob("*.py")):
        words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if path.stem == "__init__" or not words:
            continue
        # What stands indented is a command.
        words = re.sub(r"(?m)(^ {4}.*\n?)+", lambda match: f"```text\n{match[0]}```\n", words)
        parts.append(f"## {path.stem}\n\n{words}\n")
    return "\n".join(parts)


def _towers(kind: str) -> str:
    from ape_jax.towers.family import FAMILIES

    rows = [
        [
            family.title,
            family.models,
            family.licence,
            _names(family.model_types) or "its own files",
            _pooling(family),
            _parity(family),
            f"no: it {family.torch}" if isinstance(family.torch, str) else "yes",
        ]
        for family in FAMILIES.values()
        if family.kind == kind
    ]
    head = [
        "family",
        "for example",
        "licence",
        "`model_type`",
        "pooling",
        "parity",
        "exported to torch",
    ]
    return table(head, rows)


def _pooling(family: Any) -> str:
    """How a tower of a family is pooled where no file beside its weights says it."""
    from ape_jax import towers
    from ape_jax.errors import UserError

    found = set()
    for name in (name for name, section in family.model_types.items() if section is None):
        with contextlib.suppress(UserError):  # DeBERTa's defaults describe no DeBERTa.
            found.add(towers.build({"model_type": name})[1].pooling)
    return _names(sorted(found)) or "by its files"


def _parity(family: Any) -> str:
    """The largest difference from transformers of a family, kept by tests/benchmarks/parity.py."""
    kept = json.loads((ROOT / "docs/results/parity.json").read_text(encoding="utf-8"))
    found = [kept[name] for name in family.model_types if name in kept]
    return f"{max(found):.0e}" if found else "in the tests"


def head_names() -> str:
    """The heads of both sides."""
    from ape_jax.config.components import HEADS

    rows = [
        [
            f"`{name}`",
            head.title,
            " and ".join(side for side in ("image", "text") if head.stands_on(side)),
            _names(head.keys),
        ]
        for name, head in HEADS.items()
    ]
    return table(["head", "what it is", "side", "its keys"], rows)


def head_keys() -> str:
    """The keys that heads declare."""
    from ape_jax.config.components import HEADS, declared_keys

    rows = [
        [f"`{key}`", field.why, _value(field.default), field.words]
        for key, field in declared_keys(HEADS.values()).items()
    ]
    return table(["key", "what it does", "default", "takes"], rows)


def losses() -> str:
    """The losses."""
    from ape_jax.config.components import LOSSES

    rows = [[f"`{n}`", loss.title, _names(loss.keys, "loss.")] for n, loss in LOSSES.items()]
    return table(["loss", "what it is", "keys of its own"], rows)


def closed_forms() -> str:
    """The closed forms."""
    from ape_jax.config.components import CLOSED_FORMS

    rows = [
        [
            f"`{name}`",
            form.title,
            _names(form.keys, "closed."),
            "yes" if form.starts else "no",
            "`embed`, or held-out pairs" if form.takes_width else "the features",
        ]
        for name, form in CLOSED_FORMS.items()
    ]
    return table(["name", "what it is", "keys", "training starts from it", "width set by"], rows)


def pairs_formats() -> str:
    """The formats of pairs."""
    from ape_jax.data.formats.registry import FORMATS

    rows = [
        [f"`{name}`", f"`{form.spec}`", _names(form.suffixes) or f"`{form.prefix}`"]
        for name, form in FORMATS.items()
    ]
    return table(["format", "written as", "recognised by"], rows)


def export_formats() -> str:
    """The export formats."""
    from ape_jax.exporters.formats import EXPORTS

    rows = [
        [
            f"`{name}`",
            made.title,
            _names(made.needs) or "nothing more",
            "yes" if made.takes_finished else "no",
        ]
        for name, made in EXPORTS.items()
    ]
    return table(["format", "for", "needs", "takes finished models"], rows)


def commands() -> str:
    """Each command with its flags and examples."""
    from ape_jax.terminal.catalogue import COMMANDS

    parts = []
    for name, command in COMMANDS.items():
        module = command.module.removesuffix(".__main__")
        words = command.does[0].upper() + command.does[1:]
        text = f"## {name}\n\n{words}. Also `python -m {module}`.\n\n"
        text += "```text\n" + "\n".join(command.examples) + "\n```\n"
        parts.append(text + _flags(command.module))
    return "\n".join(parts)


def _flags(module: str) -> str:
    own = getattr(importlib.import_module(module), "FLAGS", {})
    rows = []
    for flag in {own[name].name: own[name] for name in own}.values():
        lead = "-" if len(flag.name) == 1 else "--"
        default = "" if flag.default in ("", None, []) else _value(flag.default)
        words = flag.help.partition(";\n")[0].replace("<", "&lt;")
        rows.append([f"`{lead}{flag.name}`", default, words])
    return f"\n{table(['flag', 'default', 'what it is'], rows)}" if len(rows) > 1 else ""


def exit_codes() -> str:
    """What the exit status of every command means."""
    from ape_jax.terminal.help import EXIT_CODES

    return table(["code", "what happened"], [[str(k), words] for k, words in EXIT_CODES.items()])


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands,
    "closed_forms": closed_forms,
    "config_keys": config_keys,
    "exit_codes": exit_codes,
    "export_formats": export_formats,
    "head_keys": head_keys,
    "head_names": head_names,
    "image_towers": lambda: _towers("image"),
    "losses": losses,
    "pairs_formats": pairs_formats,
    "recipes": recipes,
    "text_towers": lambda: _towers("text"),
}
