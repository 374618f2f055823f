"""The notebooks: clean on disk, and run from top to bottom, shrunk by their one parameter."""

import os
import pathlib
import sys

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all of them, so that the last finds the run of the first."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """The packages of this process, one device, and no trace in the home directory."""
    bins = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name, value in {
        "PATH": bins,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # As all tests.
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }.items():
        monkeypatch.setenv(name, value)


def shrunk(path):
    """The notebook with its one parameter set."""
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    assert parameters.source.startswith("QUICK = False ")
    parameters.source = parameters.source.replace("False", "True", 1)
    return notebook


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") for output in outputs)


# A larger tower, and towers exported whole, take a minute. The last finds the run of the first.
SLOW = {name: pytest.mark.slow for name in ("your_own_captions", "export_to_pytorch")}


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=SLOW.get(p.stem, ())) for p in NOTEBOOKS]
)
def test_it_runs_from_top_to_bottom(path, folder, environment):
    notebook = shrunk(path)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=240, resources=resources).execute()
    said = printed(notebook)
    # A command that fails in a `!` line does not stop a notebook.
    assert "error:" not in said and "Traceback" not in said, said
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_clean(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook, indent=1) + "\n"


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == [
        "align_in_five_minutes",
        "export_to_pytorch",
        "your_own_captions",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_installs_this_package_alone(path):
    """Where jax, numpy, torch and transformers are there already, they stay as they are."""
    cells = nbformat.read(path, as_version=4).cells
    lines = [line.strip() for cell in cells for line in cell.source.splitlines()]
    (install,) = (line for line in lines if line.startswith("%pip"))
    wanted = install.removeprefix("%pip install --quiet ").strip('"')
    assert wanted.startswith("ape_jax[") and "requirements" not in " ".join(lines)
    assert not any(line.startswith("!pip") for line in lines)
