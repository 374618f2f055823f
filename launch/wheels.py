"""What a Python lacks to run ape_jax: looked for, fetched as wheels, and installed beside it.

    python launch/wheels.py fetch DIR [--python 3.12] [--there FREEZE.txt] [--machine x86_64]

fills DIR with the packages of constraints/ that another machine lacks, by their hashes. --there is
what `pip freeze` prints on that machine; without it, an image with JAX and PyTorch is assumed. The
other words are those of launch/accelerator.sh. Needs no package but pip.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# What an image with JAX, flax, PyTorch and transformers has, and what these need.
THERE = """
absl-py annotated-doc annotated-types anyio attrs certifi charset-normalizer chex click einops etils
filelock flax fsspec h11 hf-xet httpcore httpx huggingface-hub humanize idna importlib-resources
jax jax-cuda12-plugin jax-cuda13-plugin jaxlib jinja2 markdown-it-py markupsafe mdurl ml-dtypes
mpmath msgpack nest-asyncio networkx numpy opt-einsum optax orbax-checkpoint packaging pillow
protobuf psutil pyarrow pydantic pydantic-core pygments pyyaml regex requests rich safetensors scipy
setuptools shellingham simplejson sniffio sympy tensorstore tokenizers toolz torch tqdm transformers
treescope triton typer typing-extensions typing-inspection urllib3 zipp
"""
# glibc from 2.17 to that of Ubuntu 22.04; pip takes a platform by its exact name.
GLIBC = range(35, 4, -1)
OLDER = {"x86_64": ("manylinux2014", "manylinux2010", "manylinux1"), "aarch64": ("manylinux2014",)}
MOST = 64  # MiB that some machines take at a time.
ENTRY = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?: \\\n    --hash=\S+)+", re.MULTILINE)


def normal(name: str) -> str:
    """The name of a package as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fetch(argv: Sequence[str]) -> None:
    """Fills a folder with the wheels that another machine lacks."""
    parser = argparse.ArgumentParser("launch/accelerator.sh --fetch-wheels")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python")
    parser.add_argument("--there", type=Path, help="what `pip freeze` prints there")
    parser.add_argument("--machine", choices=OLDER, default="x86_64")
    flags = parser.parse_args(argv)
    there = set(map(normal, THERE.split()))
    if flags.there:
        if not flags.there.is_file():
            fail(f"--there: {flags.there} is no file; write there what `pip freeze` prints")
        there = set(names_of(flags.there.read_text()))
    wanted, built = base(lane(flags.python)), []
    flags.folder.mkdir(parents=True, exist_ok=True)
    for name, entry in wanted.items():
        if name in there:
            continue
        if not download(entry, flags.folder, flags.python, flags.machine):
            built.append(name)
            build(entry, flags.folder)
    made = sorted(flags.folder.glob("*.whl"), key=lambda path: -path.stat().st_size)
    size = sum(path.stat().st_size for path in made) / 2**20
    largest = ", ".join(f"{x.name.split('-')[0]} {x.stat().st_size / 2**20:.1f}" for x in made[:3])
    print(f"{flags.folder}: {len(made)} wheels, {size:.1f} MiB ({largest})")
    if built:
        print(f"made here from their sources: {', '.join(built)}")
    if size > MOST:
        print(f"that is more than {MOST} MiB; list with --there what the other machine has")


def lane(python: str) -> str:
    """The constraints for a version of Python."""
    if not re.fullmatch(r"3\.\d+", python) or int(python[2:]) < 11:
        fail(f"--python: expected 3.11 or later, such as 3.12, found {python!r}")
    return "py311" if python == "3.11" else "py312"


def base(of: str) -> dict[str, str]:
    """The entries of a lane's part `base`, by their normal names."""
    text = (ROOT / "constraints" / f"{of}.txt").read_text()
    part = text.split("# [base]\n")[1].split("\n# [")[0]
    return {normal(found["name"]): found[0] for found in ENTRY.finditer(part)}


def names_of(freeze: str) -> Iterator[str]:
    """The packages of `pip freeze`."""
    for line in freeze.splitlines():
        if found := re.match(r"(?:-e .*#egg=)?([A-Za-z0-9][\w.-]*)\s*(?:==|@|$)", line.strip()):
            yield normal(found[1])


def download(entry: str, folder: Path, python: str, machine: str) -> bool:
    """Downloads one wheel for another machine; returns whether there is one."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC]
    platforms += [f"{older}_{machine}" for older in OLDER[machine]]
    asked = [word for platform in platforms for word in ("--platform", platform)]
    asked += ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    abis = [f"cp{python.replace('.', '')}", "abi3", "none"]
    asked += [word for abi in abis for word in ("--abi", abi)]
    done = _pip(["download", *asked, "--dest", str(folder)], entry)
    if done.returncode and "No matching distribution" not in done.stderr:
        fail(f"{entry.split(' ')[0]} was not downloaded: {done.stderr.strip().splitlines()[-1]}")
    return done.returncode == 0


def build(entry: str, folder: Path) -> None:
    """Builds a wheel of a package that has only its source, with what the part `build` has."""
    text = (ROOT / "constraints" / "py312.txt").read_text()
    tools = "\n".join(
        found[0] for found in ENTRY.finditer(text.split("# [build]\n")[1].split("\n# [")[0])
    )
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        python = f"{place}/bin/python"
        done = _pip(["install"], tools, python)
        if not done.returncode:
            out = ["--wheel-dir", str(folder), "--no-build-isolation"]
            done = _pip(["wheel", *out], entry, python)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1]
            fail(f"{entry.split(' ')[0]} has no wheel for that machine and was not built: {why}")


def _pip(
    words: list[str], entries: str, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Runs pip on these entries and no others, by their hashes."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(entries + "\n")
        wanted.flush()
        command = [python, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", "-r", wanted.name]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def install(folder: str, target: str) -> None:
    """Installs into `target` those wheels of a folder that this Python lacks."""
    if not Path(folder).is_dir():
        fail(f"--wheels: {folder} is no folder; fill one with --fetch-wheels {folder}")
    wheels = {normal(x.name.split("-")[0]): x for x in sorted(Path(folder).glob("*.whl"))}
    if not wheels:
        fail(f"--wheels: there is no wheel in {folder}; fill it with --fetch-wheels {folder}")
    lacking = [str(path) for name, path in wheels.items() if not _version(name)]
    if not lacking:
        return
    print(f"{len(lacking)} of {len(wheels)} packages are brought along", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile"]
    command += ["--quiet", "--disable-pip-version-check", "--target", target, *lacking]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["pip ended without a word"])[-1]
        fail(f"--wheels: {why.removeprefix('ERROR: ')}; fetch them for Python {_python()}")


def check(device: str) -> None:
    """Ends with one sentence where something is missing: jax, a package, or the device."""
    from tests.accelerator.settings import PLATFORMS  # Which imports no package either.

    if device not in PLATFORMS:
        fail(f"--device: expected gpu, tpu or cpu, found {device!r}")
    if not (jax := _version("jax")):
        fail(
            f"{sys.executable} (Python {_python()}) has no jax; install the one for your device "
            "(docs.jax.dev), or set PYTHON to the Python that has it"
        )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    missing, old = _unmet([*project["dependencies"], "torch"])
    if missing:
        fail(
            f"Python {_python()} lacks {', '.join(missing)}; bring them with --wheels DIR, which "
            "launch/accelerator.sh --fetch-wheels DIR fills on a machine with a network"
        )
    if old:
        fail(f"{'; '.join(old)}: install later ones")
    asked = "import jax; print(jax.devices()[0].device_kind)"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, "JAX_PLATFORMS": PLATFORMS[device]},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        fail(
            f"--device {device}: jax {jax} finds none here ({why[:300]}); install jax for it, or "
            "write another --device"
        )


def _unmet(requirements: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of those that are not installed, and what is older than it may be."""
    requirement = _requirement()
    missing, old = [], []
    for text in requirements:
        if requirement is None:  # By their names alone.
            (name,) = names_of(re.split(r"[<>=!~;\[ ]", text)[0])
            missing += [] if _version(name) or name in missing else [name]
            continue
        wanted = requirement(text)
        if wanted.marker and not wanted.marker.evaluate():
            continue
        version = _version(wanted.name)
        if not version:
            missing.append(wanted.name)
        elif not wanted.specifier.contains(version, prereleases=True):
            old.append(f"{wanted.name} {version} is installed, and {wanted.specifier} is needed")
    return missing, old


def _requirement() -> Any:
    """The class that reads requirements: of `packaging` or of pip's own copy; None without both."""
    for module in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(module).Requirement
    return None


def _version(name: str) -> str:
    """The version of an installed package, '' for none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def fail(sentence: str) -> None:
    """Ends with a sentence and exit code 2."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "fetch":
        fetch(rest)
    else:
        {"install": install, "check": check}[verb](*rest)
