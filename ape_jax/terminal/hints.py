"""What was probably meant by a flag that a command does not have."""

from __future__ import annotations

import difflib
import importlib

from absl import flags

from ape_jax.config import schema, synonyms
from ape_jax.config.experiment import Config
from ape_jax.terminal.catalogue import COMMANDS

# What other programs call the flags of ours, the likeliest first where one word has several.
_FLAGS = {
    "out": "output output_dir outdir out_dir dest destination to save o",
    "workdir": "run dir output output_dir outdir logdir log_dir save_dir run_dir model checkpoint "
    "ckpt model_dir experiment work_dir w o",
    "data": "dataset pairs eval test images file csv input",
    "images": "folder photos image_dir image_folder data dataset dir input",
    "query": "text search q prompt queries",
    "like": "image similar img query_image",
    "k": "top_k topk top n num limit",
    "index": "db database",
    "format": "type to backend target f",
    "classnames": "classes labels class_names names",
    "templates": "prompts template",
    "labelled": "labeled data dataset classes",
    "topology": "tpu gpu slice device devices chips",
    "batch": "batch_size bs",
    "json": "as_json output_json",
    "config": "recipe c cfg config_file preset",
    "port": "p",
    "host": "address bind listen",
}


def unknown_flag(name: str, value: str, command: str, own: flags.FlagValues) -> str:
    """A sentence on a flag that a command does not have.

    Args:
      name: of the flag, without dashes.
      value: what followed it, "" if nothing.
      command: name of the command.
      own: its flags.
    """
    plain = name.replace("-", "_").lower()
    mine = {own[flag].name for flag in own}
    written = f"no flag --{name}"
    close = difflib.get_close_matches(plain, mine, n=1, cutoff=0.75)
    if close:
        return f"{written}; did you mean --{close[0]}?"
    if "config" in mine and (key := _config_key(plain)):
        return f"{written}; write --config.{key}={value or 'VALUE'}"
    if flag := _renamed(plain, mine):
        return f"{written}; write --{flag} {value or own[flag].name.upper()}"
    if "config" in mine and (said := synonyms.sentence_of(plain)):
        return f"{written}; {said}"
    if others := _others(plain):
        return f"{written}; it is a flag of {' and '.join(f'ape-jax {name}' for name in others)}"
    if "config" not in mine and (key := _config_key(plain)):
        return f"{written}; {key} is a key of the run's config, which training takes"
    return f"{written}; ape-jax {command} --help shows the flags"


def _config_key(name: str) -> str | None:
    known = schema.keys(Config)
    if name in known:
        return name
    key = synonyms.key_of(name, known)
    return "data.eval.NAME" if key == "data.eval" else key


def _renamed(name: str, mine: set[str]) -> str | None:
    found = [flag for flag, names in _FLAGS.items() if flag in mine and name in names.split()]
    return found[0] if found else None


def _others(name: str) -> list[str]:
    """The commands that have such a flag."""
    found = []
    for command, entry in COMMANDS.items():
        own = getattr(importlib.import_module(entry.module), "FLAGS", ())
        if name in own:
            found.append(command)
    return found
