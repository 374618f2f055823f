"""Writes constraints/py311.txt and py312.txt: exact versions with hashes, tested together.

    python launch/constraints.py [--upgrade] [py311|py312] [WHEEL...]

adds what pyproject.toml asks for and keeps what is there; --upgrade takes the newest of all. Each
of the two lanes has a file of parts, which launch/setup.sh installs one by one; a package stands in
the first part that needs it. Its hashes are those of all files of its version, for any machine and
Python, and of WHEELs of the same version from elsewhere: PyTorch's build for CPUs, which is not on
the index. Needs uv and the package index, and no package of this repository.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = {"py311": "3.11", "py312": "3.12"}
# PyTorch, and torchvision for it: one version has a build for CPUs and one for GPUs, which need
# different packages. Of both pip would take the one on the index, whose hash is in its page there.
TORCH = {"py311": ("2.13.0", "0.28.0"), "py312": ("2.14.1", "0.29.1")}
APART = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
PARTS = {
    "build": ["setuptools", "setuptools-download"],
    "base": ["--extra=demo"],
    "cpu": ["--extra=cpu"],
    "torch-cpu": [],
    "torch": [],
    "torch-gpu": [],
    "test": ["--extra=dev"],
    "judges": ["--extra=judges"],
    "plan-tpu": ["--extra=plan-tpu"],
    "plan-gpu": ["--extra=plan-gpu"],
}
# Of the judges, what the tests need; what these ask for is in `judges`.
ALONE = ("clip-benchmark", "open-clip-torch")
WHAT = {
    "build": "With which the others, and ape_jax, are built where they are no wheels.",
    "base": "ape_jax itself and its demo.",
    "cpu": "For x86 processors.",
    "torch-cpu": "Before `test`: the build for CPUs, where pip is told of an index that has it.",
    "torch": "The index's build otherwise.",
    "torch-gpu": "What its build for GPUs needs beside what is in the other parts.",
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


def write(lane: str, upgrade: bool, wheels: list[Path]) -> None:
    """Writes the file of one lane."""
    path = ROOT / "constraints" / f"{lane}.txt"
    known = path.read_text() if path.exists() else ""
    torch, torchvision = (f"{n}=={v}" for n, v in zip(("torch", "torchvision"), TORCH[lane]))
    wanted = [word for words in PARTS.values() for word in words if "plan-" not in word]
    kept = "" if upgrade else known
    everything = "".join(resolved(lane, [*wanted, torch, torchvision], kept=kept).values())
    lines = [
        f"# Python {PYTHON[lane]}: versions that were tested together, written by",
        "# launch/constraints.py and read by launch/setup.sh, a part at a time.",
    ]
    seen: set[str] = set()
    for part in PARTS:
        if part == "torch-cpu":
            found = _builds(f"{torch}+cpu", known, wheels)
        else:
            found = _part(lane, part, torch, everything)
        new = {name: entry for name, entry in found.items() if name not in seen}
        seen |= set(new)
        lines += ["", f"# [{part}]", f"# {WHAT[part]}", "".join(new.values()).rstrip()]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(seen)} packages")


def _part(lane: str, part: str, torch: str, everything: str) -> dict[str, str]:
    """The entries of a part, those of earlier parts included."""
    if part.startswith("torch"):
        found = resolved(lane, [torch], everything)
        apart = {name: entry for name, entry in found.items() if APART.match(entry)}
        alone = {"torch": apart.pop("torch")}
        return alone if part == "torch" else apart
    found = resolved(lane, PARTS[part], everything)
    if part == "build":  # Without what ape_jax needs.
        return {name: found[name] for name in PARTS[part]}
    if part == "test":
        judges = resolved(lane, PARTS["judges"], everything)
        found = dict(sorted((found | {name: judges[name] for name in ALONE}).items()))
    compiler = part == "plan-gpu"
    return {
        name: entry
        for name, entry in found.items()
        if not APART.match(entry) or (compiler and name.startswith("nvidia-cuda-nvcc"))
    }


def _builds(version: str, known: str, wheels: list[Path]) -> dict[str, str]:
    """The entry of a build that is not on the index: hashes that are known, and those of wheels."""
    before = [found[0] for found in ENTRY.finditer(known) if found[0].startswith(f"{version} ")]
    hashes = set(re.findall(r"sha256:\w+", "".join(before)))
    for wheel in wheels:
        if "==".join(wheel.name.split("-")[:2]) == version:
            hashes.add(f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    lines = "".join(f" \\\n    --hash={one}" for one in sorted(hashes))
    return {version: f"{version}{lines}\n"} if hashes else {}


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--upgrade"]
    lanes = [word for word in words if word in PYTHON]
    for one in lanes or PYTHON:
        write(one, "--upgrade" in sys.argv, [Path(word) for word in words if word not in PYTHON])
