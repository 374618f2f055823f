"""Files that a user or an earlier run wrote are opened by `ape_jax.storage.files` alone.

Whatever else opens, reads or parses one in the package is listed here with the reason: so that a
pipe, a name of 300 characters or 100,000 brackets is one sentence by construction.
"""

import ast
import pathlib

import pytest

import ape_jax

PACKAGE = pathlib.Path(ape_jax.__file__).parent
DOOR = "storage/files.py"
READERS = ("json.load", "json.loads", "np.load", "numpy.load", "np.fromfile", "np.memmap")
# Of libraries, which take a path and open it by themselves.
LIBRARIES = ("safe_open", "memory_map", "OSFile", "ParquetFile", "from_file", "load_file")
OTHERS = ("Image.open", "PIL.Image.open", "os.open", "webbrowser.open")

OWN = "reads what this process, or one that it has started, has just written"
CHECKED = "maps or reads a file whose size or hash was compared before"
SYSTEM = "reads what the system says of itself"
TEXT = "parses a text in memory that no user wrote"
SHIPPED = "runs where nothing of ours is installed"
PART = "parses a line, a cell or a field of a file that its reader has opened and bounded"
KIND = "a library opens it by its path, after its kind was checked"
# Files, or folders that end in a slash, that read by themselves, and why they may.
ALLOWED = {
    "demo/": "reads packages whose hashes are in the package",
    "exporters/scripts/": SHIPPED,
    "exporters/shipped/": SHIPPED,
    "exporters/processors.py": TEXT,
    "exporters/verify.py": OWN,
    "features/files/shards.py": CHECKED,
    "images/decode.py": "opens bytes in memory, without their metadata",
    "nn/mkl.py": SYSTEM,
    "planner/shares.py": "reads a table that comes with the package",
    "parallel/environment.py": "hashes the code of this package",
    "parallel/peers.py": "parses what another process of the run has sent",
    "search/build.py": OWN,
    "search/store.py": CHECKED,
    "storage/memory.py": SYSTEM,
    "storage/rows/mapped.py": CHECKED,
    "storage/sealed.py": TEXT,
    "data/cells.py": PART,
    "data/formats/published/medicat.py": PART,
    "data/formats/sidecars.py": PART,
    "data/formats/tables/arrow_cells.py": PART,
    "data/formats/tables/hub.py": KIND,
    "data/formats/tables/parquet.py": KIND,
    "data/precomputed/arrow.py": OWN,
    "data/precomputed/lists.py": OWN,
    "data/precomputed/names.py": CHECKED,
    "data/precomputed/source.py": KIND,
    "data/remote/transports.py": "reads what is on another machine",
    "data/table/sheet.py": CHECKED,
    "data/table/texts.py": CHECKED,
    "towers/files/sources.py": KIND,
    "towers/text/token_files.py": KIND,
    "runs/directory/ranks_file.py": "reads arrays of numbers from a file that the door has opened",
    "runs/directory/claim.py": OWN,
    "runs/provenance.py": CHECKED,
    "runs/checkpoints/saving.py": OWN,
}


def _reads(call: ast.Call) -> bool:
    """Whether a call opens a file to read it, reads one, or parses what was read."""
    name = ast.unparse(call.func)
    if name in OTHERS or name in READERS:
        return name in READERS
    attribute = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    of = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name.rpartition(".")[2] in LIBRARIES:
        return not any(ast.unparse(argument) == "'wb'" for argument in call.args)
    if any(k.arg == "fileobj" for k in call.keywords):  # What is open already.
        return False
    if attribute in ("read_text", "read_bytes"):
        return of not in ("files", "storage")
    if name not in ("open", "io.open") and (attribute != "open" or of.startswith("archive")):
        return False
    place = 1 if name in ("open", "io.open") else 0
    keyword = next((k.value for k in call.keywords if k.arg == "mode"), None)
    mode = call.args[place] if len(call.args) > place else keyword
    written = mode.value if isinstance(mode, ast.Constant) else "r"
    return not str(written).startswith(("w", "a", "x"))


def _readers(source: str) -> list[int]:
    """The lines of a file that read."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return sorted(call.lineno for call in calls if _reads(call))


def _entry(name: str) -> str | None:
    return next((k for k in ALLOWED if name == k or (k[-1] == "/" and name.startswith(k))), None)


def test_files_are_read_by_the_door_alone():
    found = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := _readers(path.read_text()))
    }
    beside = {k: lines for k, lines in found.items() if k != DOOR and _entry(k) is None}
    assert not beside, f"read these through ape_jax.storage.files: {beside}"
    assert {_entry(name) for name in found} - {None} == set(ALLOWED), "an entry is of no use now"


@pytest.mark.parametrize(
    ("code", "reads"),
    [
        ("open(p)", True),
        ("open(p, 'rb')", True),
        ("open(p, mode='r')", True),
        ("open(p, 'wb')", False),
        ("path.open(encoding='utf-8')", True),
        ("path.open('a')", False),
        ("path.read_text()", True),
        ("(path / 'x').read_bytes()", True),
        ("files.read_text(path)", False),
        ("json.loads(line)", True),
        ("np.load(path)", True),
        ("np.memmap(path)", True),
        ("Image.open(file)", False),
        ("archive.open(info)", False),
        ("pq.ParquetFile(path)", True),
        ("safe_open(path, 'np')", True),
        ("pa.OSFile(path, 'wb')", False),
        ("tarfile.open(path)", True),
        ("tarfile.open(fileobj=file)", False),
    ],
)
def test_the_test_sees_what_reads(code, reads):
    assert bool(_readers(code)) is reads
