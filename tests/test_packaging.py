"""What is installed: the project's metadata, and the extras that messages name."""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ape_jax
from ape_jax.exporters.formats import EXPORTS

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_extra_that_is_named_exists():
    """In messages, flags, the launchers and the documents."""
    places = [*(ROOT / "ape_jax").rglob("*.py"), *(ROOT / "launch").rglob("*.sh")]
    places += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "pyproject.toml"]
    named = {}
    for path in places:
        text = path.read_text()
        lists = re.findall(r"ape_jax\[([\w,-]+)\]", text)
        calls = re.findall(r"\binstall\([\"']([\w-]+)[\"']\)", text)
        named |= {extra: path for extra in ",".join([*lists, *calls]).split(",") if extra}
    assert {"export", "judges", "plan-tpu", "app"} <= set(named)
    assert not {extra: path for extra, path in named.items() if extra not in EXTRAS}
    needed = {extra for name in EXPORTS for extra in EXPORTS[name].needs}
    assert needed and needed <= set(EXTRAS)


def test_no_requirement_is_capped():
    """A cap keeps a package out of environments that are newer than it; one needs a reason."""
    listed = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    assert not [line for line in listed if re.search(r"<|==|~=", line.partition(";")[0])]


@pytest.mark.parametrize("lane", ["3.11", "3.12"])
def test_exact_versions_are_of_what_is_asked_for(lane):
    """Each lane has every package of the default install and of the tests, by hash; no address."""
    text = (ROOT / f"constraints/py{lane.replace('.', '')}.txt").read_text()
    entries = re.findall(r"^([\w.-]+)==([^\s\\]+)((?: \\\n    --hash=\S+)*)$", text, re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version, _ in entries}
    assert entries and [name for name, _, hashes in entries if not hashes] == []
    requirements = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(requirements) == len(entries)
    for line in [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["demo"], *EXTRAS["judges"]]:
        asked = Requirement(line)
        if asked.name != "ape_jax" and (
            asked.marker is None or asked.marker.evaluate({"python_version": lane})
        ):
            assert versions[canonicalize_name(asked.name)] in asked.specifier, line
    assert "://" not in text


def test_the_version_is_in_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", ape_jax.__version__)


def test_the_command_is_declared():
    (entry,) = PROJECT["scripts"].values()
    point = importlib.metadata.EntryPoint("ape-jax", entry, "console_scripts")
    assert callable(point.load())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built from a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    copied = folder / "copy"
    copied.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copied)
    shutil.copytree(
        ROOT / "ape_jax", copied / "ape_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, copied], check=True, timeout=240)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "ape-jax = ape_jax.cli:main" in archive.read(entry).decode()
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ape_jax").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == here
    assert {"ape_jax/py.typed", "ape_jax/recipes/few_pairs.py"} < names
    assert any(name.startswith("ape_jax/exporters/shipped/") for name in names)


def test_an_installed_wheel_trains_from_an_empty_directory(wheel, tiny, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    arguments = f"few_pairs:image={tiny}/image,text={tiny}/text,pairs={tiny}/pairs.jsonl"
    command = ["--config", f"{arguments},runlocal", "--workdir=run", "--config.train.batch=8"]
    settings = [
        "--config.image.size=0",
        "--config.text.head.width=64",
        "--config.train.steps=4",
        "--report=false",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "ape_jax.main", *command, *settings],
        cwd=tmp_path / "empty",
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path / "installed"),
            "XLA_FLAGS": "",
            "APE_JAX_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "empty/run/summary.json").exists()
