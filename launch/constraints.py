"""Writes constraints/py311.txt and py312.txt: exact versions with hashes, tested together.

    python launch/constraints.py [--upgrade] [py311|py312]

adds what pyproject.toml asks for and keeps what is there; --upgrade takes the newest of all. Each
of the two lanes has a file of parts, which launch/setup.sh installs one by one; a package stands in
the first part that needs it. Needs uv and the package index, and no package of this repository.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = {"py311": "3.11", "py312": "3.12"}
# PyTorch, without hashes, and torchvision for it: one version has a build for CPUs and one for
# GPUs, which need different packages; pip takes the one that it finds.
TORCH = {"py311": ("2.13.0", "0.28.0"), "py312": ("2.14.1", "0.29.1")}
APART = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
PARTS = {
    "base": ["--extra=demo", "setuptools"],
    "cpu": ["--extra=cpu"],
    "test": ["--extra=dev"],
    "judges": ["--extra=judges"],
    "plan-tpu": ["--extra=plan-tpu"],
    "plan-gpu": ["--extra=plan-gpu"],
}
# Of the judges, what the tests need; what these ask for is in `judges`.
ALONE = ("clip-benchmark", "open-clip-torch")
WHAT = {
    "base": "ape_jax itself and its demo.",
    "cpu": "For x86 processors.",
    "torch": "Before `test`: the build that pip finds.",
    "test": "What launch/test.sh runs with, installed without what these ask for: Gradio an older\n"
    "# Pillow than it runs with, clip-benchmark torchvision, which its command alone needs.",
    "judges": "For that command, in a folder of its own: transformers resizes with it if it can.",
    "plan-tpu": "The compiler for TPUs; on a machine without one in a folder of its own.",
    "plan-gpu": "That for GPUs.",
}
ENTRY = re.compile(r"^(?P<name>[\w.-]+)==\S+(?: \\\n    --hash=\S+)+\n?", re.MULTILINE)


def resolved(lane: str, wanted: list[str], known: str = "", kept: str = "") -> dict[str, str]:
    """The entries of the packages that are wanted and of all that they need, by name.

    Args:
      lane: `py311` or `py312`.
      wanted: options of uv and names of packages.
      known: entries whose versions are taken.
      kept: entries whose versions are taken where they can be.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        names = [word for word in wanted if not word.startswith("--")]
        options = [word for word in wanted if word.startswith("--")]
        (place / "wanted.in").write_text("\n".join(names))
        (place / "overrides.txt").write_text("pillow>=13\n")
        (place / "known.txt").write_text(re.sub(r" \\\n    --hash=\S+", "", known))
        command = ["uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header"]
        command += ["--no-annotate", f"--python-version={PYTHON[lane]}"]
        command += ["--python-platform=x86_64-manylinux_2_31", "--override", "overrides.txt"]
        (place / "out.txt").write_text(kept)
        command += [
            "--constraint",
            "known.txt",
            "--output-file",
            "out.txt",
            *options,
            ROOT / "pyproject.toml",
            "wanted.in",
        ]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        text = (place / "out.txt").read_text()
    return {found["name"]: found[0].strip() + "\n" for found in ENTRY.finditer(text)}


def write(lane: str, upgrade: bool) -> None:
    """Writes the file of one lane."""
    path = ROOT / "constraints" / f"{lane}.txt"
    kept = path.read_text() if path.exists() and not upgrade else ""
    torch, torchvision = (f"{n}=={v}" for n, v in zip(("torch", "torchvision"), TORCH[lane]))
    wanted = [word for words in PARTS.values() for word in words if "plan-" not in word]
    everything = "".join(resolved(lane, [*wanted, torch, torchvision], kept=kept).values())
    lines = [
        f"# Python {PYTHON[lane]}: versions that were tested together, written by",
        "# launch/constraints.py and read by launch/setup.sh, a part at a time.",
    ]
    seen: set[str] = set()
    for part, words in PARTS.items():
        if part == "test":
            lines += ["", "# [torch]", f"# {WHAT['torch']}", torch]
        found = resolved(lane, words, everything)
        if part == "test":
            judges = resolved(lane, PARTS["judges"], everything)
            found = dict(sorted((found | {name: judges[name] for name in ALONE}).items()))
        new = {n: entry for n, entry in found.items() if n not in seen and not APART.match(entry)}
        if part == "plan-gpu":
            new |= {n: e for n, e in found.items() if n.startswith("nvidia-cuda-nvcc")}
        seen |= set(new)
        lines += ["", f"# [{part}]", f"# {WHAT[part]}", "".join(new.values()).rstrip()]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(seen)} packages")


if __name__ == "__main__":
    lanes = [word for word in sys.argv[1:] if word != "--upgrade"]
    for one in lanes or PYTHON:
        write(one, upgrade="--upgrade" in sys.argv)
