"""The README.md of an exported directory: a model card for the hub, filled from the run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import jax
from huggingface_hub import ModelCardData

from ape_jax.config import Config
from ape_jax.config.components import SideName
from ape_jax.config.outside import is_torch
from ape_jax.errors import UserError
from ape_jax.exporters.publish import figures as card_figures
from ape_jax.exporters.publish.usage import DUAL_ENCODER, JAX, ONNX, STABLEHLO, TORCH
from ape_jax.runs.aligned import AlignedModel
from ape_jax.storage import files
from ape_jax.terminal import tables
from ape_jax.towers.files import sources
from ape_jax.towers.torch import folders as torch_folders

__all__ = ["DUAL_ENCODER", "JAX", "ONNX", "STABLEHLO", "TORCH", "copy_notices", "text"]

_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@[\w./-]+)?(?::.*)?")
_ELSEWHERE = ("hf:", "demo:", "tfds:")  # Specs that mean the same on every machine.
_PAPERS = {
    "APE": (
        "rosenfeld2022ape",
        "Rosenfeld, Elan and Nakkiran, Preetum and Pouransari, Hadi and Tuzel, Oncel and "
        "Faghri, Fartash",
        "APE: Aligning Pretrained Encoders to Quickly Learn Aligned Multimodal Representations",
        "2210.03927",
    ),
    "LilT": (
        "khan2023lilt",
        "Khan, Zaid and Fu, Yun",
        "Contrastive Alignment of Vision to Language Through Parameter-Efficient Transfer Learning",
        "2303.11866",
    ),
    "LiT": (
        "zhai2022lit",
        "Zhai, Xiaohua and Wang, Xiao and Mustafa, Basil and Steiner, Andreas and Keysers, Daniel "
        "and Kolesnikov, Alexander and Beyer, Lucas",
        "LiT: Zero-Shot Transfer with Locked-image text Tuning",
        "2111.07991",
    ),
    "CLIP": (
        "radford2021clip",
        "Radford, Alec and Kim, Jong Wook and Hallacy, Chris and others",
        "Learning Transferable Visual Models From Natural Language Supervision",
        "2103.00020",
    ),
}


def text(aligned: AlignedModel, usage: str, library: str = "transformers") -> str:
    """The card; `card_facts.complete` adds what only the user knows.

    Args:
      aligned: the run.
      usage: how the directory is used: `TORCH`, `DUAL_ENCODER`, `ONNX`, `STABLEHLO` or `JAX`.
      library: what the directory is loaded with, by a hub's name for it.
    """
    config = aligned.config
    figures = card_figures.read(aligned)
    parts = [
        f"---\n{_metadata(aligned, library, figures).to_yaml(line_break=chr(10))}\n---",
        f"# {_title(aligned)}",
        f"Taken over by ape_jax from `{_public(aligned.source)}`, with nothing trained."
        if aligned.is_imported
        else f"Made by ape_jax out of two pretrained towers: {_method(aligned)}.",
        "## How to use it",
        _filled(usage, config.data.background),
        _spoken(usage, aligned),
        card_figures.section(figures),
        "## Towers",
        _towers(aligned),
        "" if aligned.is_imported else _training(aligned),
        "## Limits",
        _limits(aligned, figures),
        "## Citation",
        _citation(aligned),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(
    aligned: AlignedModel, library: str, figures: Sequence[card_figures.Figures]
) -> ModelCardData:
    """What the hub reads; only what is known."""
    config = aligned.config
    towers = [config.side(side).tower for side in ("image", "text")]
    models = list(dict.fromkeys(m[1] for spec in towers if (m := _HUB.fullmatch(spec))))
    data = _HUB.fullmatch(config.data.pairs)
    return ModelCardData(
        base_model=models or None,
        datasets=[data[1]] if data else None,
        library_name=library,
        pipeline_tag="zero-shot-image-classification",
        tags=["ape_jax", "image-text-retrieval", "dual-encoder", *_kind_tag(aligned)],
        model_name=_title(aligned),
        eval_results=card_figures.results(figures) or None,
    )


def _kind(aligned: AlignedModel) -> str:
    """The paper whose way of training the run follows; '' for none."""
    config = aligned.config
    if aligned.is_imported or not config.trains:
        return ""
    tunes = (config.image.tune, config.text.tune)
    if tunes == ("frozen", "frozen"):
        return "APE"
    if tunes == ("full", "full"):
        return "CLIP"
    return "LiT" if set(tunes) == {"frozen", "full"} else "LilT"


def _kind_tag(aligned: AlignedModel) -> list[str]:
    return [_kind(aligned).lower()] if _kind(aligned) else []


def _title(aligned: AlignedModel) -> str:
    """The towers' names, without their folders and revisions."""
    if aligned.is_imported:
        return PurePosixPath(aligned.source.partition("@")[0]).name or "An aligned model"
    return f"{_name(aligned.config, 'image')} aligned with {_name(aligned.config, 'text')}"


def _name(config: Config, side: SideName) -> str:
    spec = config.side(side).tower.partition("@")[0]
    return PurePosixPath(re.sub(r"^\w+:", "", spec)).name or spec


def _public(spec: str) -> str:
    """A spec for other people: of files and folders of this machine the last part of the path."""
    if any(kind in spec for kind in _ELSEWHERE):
        return spec
    return re.sub(r"[^:,]*/(?=[^/])", "", spec)


def _training(aligned: AlignedModel) -> str:
    summary = aligned.summary
    return (
        f"## Training\n\n{summary.get('pairs', 0):,} images with captions of "
        f"`{_public(aligned.config.data.pairs)}`, {aligned.step:,} steps; "
        f"{summary.get('parameters_trained', 0):,} parameters trained and "
        f"{summary.get('parameters_frozen', 0):,} frozen."
    )


def _limits(aligned: AlignedModel, figures: Sequence[card_figures.Figures]) -> str:
    longest = aligned.model.text.tower.prepare.max_length
    lines = [
        f"Texts are cut after {longest} tokens." if isinstance(longest, int) else "",
        "Languages and kinds of images that its towers do not know, it does not know either; what "
        "they have learnt, biases included, it keeps.",
        "A cosine is no probability: choose thresholds on data of your own.",
    ]
    if not figures:
        lines.append("No figures on held-out pairs stand in this card: test it before you use it.")
    elif not aligned.is_imported:
        lines.append(
            "The figures above are of pairs like those that it was made and tested with, and say "
            "little about others."
        )
    return "\n".join(f"* {line}" for line in lines if line)


def _citation(aligned: AlignedModel) -> str:
    kind = _kind(aligned)
    if not kind:
        return "Made with ape_jax; cite the papers of the towers."
    key, authors, title, arxiv = _PAPERS[kind]
    return (
        f"Made with ape_jax, in the way of {kind}; cite the papers of the towers, too.\n\n"
        f"```bibtex\n@article{{{key},\n  title = {{{title}}},\n  author = {{{authors}}},\n"
        f"  journal = {{arXiv:{arxiv}}},\n  year = {{20{arxiv[:2]}}}\n}}\n```"
    )


def _spoken(usage: str, aligned: AlignedModel) -> str:
    """How texts are told to be in a language, of a model with means of languages."""
    known = aligned.model.languages
    if known is None:
        return ""
    names = ", ".join(f"`{name}`" for name, _ in known.names)
    how = "model.encode_text(texts, language=NAME)"
    if usage != JAX:
        how = "processor.tokenizer(texts, language=NAME, padding=True, return_tensors=...)"
    more = ""
    if usage in (ONNX, STABLEHLO):
        more = "\nThe text half takes a third input, `language`, behind `attention_mask`."
    return (
        f"The mean of its language is taken off each text. Languages are {names}; texts are told by"
        f"\ntheir script, or by name: `{how}`.{more}"
    )


def _filled(usage: str, background: Sequence[int]) -> str:
    """The usage with what it leaves to the run."""
    usage = usage.replace("BACKGROUND", str(tuple(background)))
    return usage.replace("JAXVERSION", jax.__version__).strip()


def _method(aligned: AlignedModel) -> str:
    config, sides = aligned.config, []
    for name, side in (("image", aligned.model.image), ("text", aligned.model.text)):
        head = config.side(name).head.name if config.trains else "solved"
        layer = "its output" if side.layer == -1 else f"layer {side.layer}"
        if joined := side.tower.config.joined:
            layer = f"layers {', '.join(map(str, joined))}, joined"
        sides.append(f"{name} tower {side.tune}, read at {layer}, head {head}")
    how = "trained contrastively" if config.trains else f"solved by {config.method}"
    if config.trains and aligned.solved:
        how += f" from {aligned.solved['method']}"
    return f"{how}; {'; '.join(sides)}"


def _towers(aligned: AlignedModel) -> str:
    rows = []
    for name, side in (("image", aligned.model.image), ("text", aligned.model.text)):
        spec, digest = side.tower.spec, side.tower.digest[:12]
        family = side.tower.config.family
        rows.append([name, f"`{_public(spec)}`", family, digest, licence(spec)])
    return tables.markdown(["side", "tower", "family", "sha256", "licence"], rows)


def _text(file: Path) -> str:
    try:
        return files.read_bytes(file).decode(errors="replace")
    except (OSError, UserError):  # What is no file states nothing.
        return ""


def licence(spec: str) -> str:
    """The licence that a tower's files state, in a NOTICE or at the head of a model card."""
    for name, pattern in (("NOTICE", r"^Licence: (.+)$"), ("README.md", r"^license: (.+)$")):
        for file in _files(spec, name):
            found = re.search(pattern, _text(file), re.MULTILINE)
            if found:
                return found[1].strip()
    return "not stated in its files"


def copy_notices(aligned: AlignedModel, directory: Path) -> None:
    """Copies what must stay with the towers' weights: their NOTICE and LICENSE files."""
    for side in (aligned.model.image, aligned.model.text):
        for pattern in ("NOTICE*", "LICENSE*", "LICENCE*"):
            for file in _files(side.tower.spec, pattern):
                shutil.copyfile(file, directory / f"{side.tower.kind}_tower_{file.name}")


def _files(spec: str, pattern: str) -> list[Path]:
    """Files in the directory of a tower; none of one that is a file, or gone since it was read."""
    try:
        torch = is_torch(spec)
        path = torch_folders.resolve(torch_folders.parse(spec)) if torch else sources.resolve(spec)
        return [file for file in sorted(path.glob(pattern)) if file.is_file()]
    except UserError:
        return []
