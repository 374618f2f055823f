"""The command that makes an index and asks it, on a run that was trained."""

import json
import shutil

import numpy as np
import pytest

import ape_jax
from ape_jax import index
from ape_jax.storage import sealed
from ape_jax.terminal import command


@pytest.fixture
def run(capsys):
    """Runs the command; gives its exit code, what it found, and stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            command.run(index.main, ["index", "--json", *map(str, words)])
        said = capsys.readouterr()
        return stop.value.code or 0, json.loads(said.out) if said.out else {}, said.err

    return run


def test_a_folder_is_indexed_and_asked(run, tiny, tiny_run, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    for file in tiny.glob("*.png"):
        shutil.copy(file, photos)
    (photos / "zip.png").write_bytes(b"PK\x03\x04")
    make = (f"--workdir={tiny_run}", f"--images={photos}", f"--out={out}")
    code, made, _ = run(*make)
    assert code == 0
    assert made == {"encoded": 24, "gone": 0, "images": 24, "kept": 0, "unreadable": 1}
    assert run(*make)[1]["encoded"] == 0
    model, paths = ape_jax.load(tiny_run), sorted(photos.glob("*-*.png"))
    image = photos / "red-bar.png"
    _, found, _ = run(f"--index={out}", "--query=a red bar", f"--like={image}", "-k", "3")
    (hits,) = model.retrieve(["a red bar"], paths, k=3)
    assert [name for name, _ in found["a red bar"]] == [str(paths[place]) for place, _ in hits]
    np.testing.assert_allclose(
        [cosine for _, cosine in found["a red bar"]], [cosine for _, cosine in hits], atol=1e-5
    )
    assert found[str(image)][0] == [str(image), pytest.approx(1, abs=1e-5)]
    moved = tmp_path / "moved"
    shutil.copytree(tiny_run, moved)
    _, again, _ = run(f"--index={out}", f"--workdir={moved}", "--query=a red bar", "-k=3")
    assert again["a red bar"] == found["a red bar"]
    record = sealed.unseal(json.loads((out / "index.json").read_text()))
    record["identity"]["trained parameters"], record["run"] = "other", str(tmp_path / "gone")
    (out / "index.json").write_text(json.dumps(sealed.seal(record)))
    code, _, error = run(f"--index={out}", f"--workdir={moved}", "--query=a red bar")
    assert code == 1 and "with other trained parameters than this one" in error
    code, _, error = run(f"--index={out}", "--query=a red bar")
    assert code == 1 and "which is gone; say where with --workdir" in error


def test_made_and_asked_in_one_call(tiny, tiny_run, tmp_path, capsys):
    made = [f"--workdir={tiny_run}", f"--images={tiny}/pairs.jsonl", f"--out={tmp_path}/index"]
    with pytest.raises(SystemExit) as stop:
        command.run(index.main, ["index", *made, "--query=a red bar", "-k=2"])
    first, asked, *hits = capsys.readouterr().out.splitlines()
    assert not stop.value.code and first.startswith(f"{tmp_path}/index: ")
    assert asked == "a red bar, among 24 images:" and len(hits) == 2


def test_an_index_is_written_as_a_table_without_its_run(run, tiny, tiny_run, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    out, first, second = tmp_path / "index", tmp_path / "a.parquet", tmp_path / "b/b.parquet"
    make = (f"--workdir={tiny_run}", f"--images={tiny}/pairs.jsonl", f"--out={out}")
    code, made, _ = run(*make, f"--to={first}", "--query=a red bar", "-k=24")
    assert code == 0 and made["--to"] == {
        "path": str(first), "rows": 24, "bytes": first.stat().st_size
    }  # fmt: skip
    record = sealed.unseal(json.loads((out / "index.json").read_text()))
    (out / "index.json").write_text(json.dumps(sealed.seal(record | {"run": "gone"})))
    assert run(f"--index={out}", f"--to={second}", "--to_dtype=int8")[0] == 0
    (query,) = ape_jax.load(tiny_run).encode_text(["a red bar"])
    rows = duckdb.execute(
        f"SELECT path, array_cosine_similarity(vector::FLOAT[{len(query)}], "
        f"?::FLOAT[{len(query)}]) AS cosine FROM '{first}' ORDER BY cosine DESC",
        [query.tolist()],
    ).fetchall()
    names, cosines = zip(*made["a red bar"])
    assert [name for name, _ in rows] == list(names)
    np.testing.assert_allclose([cosine for _, cosine in rows], cosines, atol=1e-5)
    captions = duckdb.execute(f"SELECT path, captions FROM '{second}'").fetchall()
    assert all(texts for _, texts in captions) and len(captions) == 24
    code, _, error = run(f"--index={out}", f"--to={second}")
    assert code == 1 and "exists; name a file that does not" in error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--images=x"], "--images and --out"),
        (["--images=x", "--out=y", "--index=z"], "--index: write"),
        ([], "--index: write"),
        (["--index=no-such"], "--query: expected"),
        (["--index=no-such", "--query=a"], "holds no index"),
        (["--index=no-such", "--to=a.csv"], "--to: found the ending '.csv'"),
        (["--index=no-such", "--to=/no/such/folder/a.parquet"], "holds no index"),
        (["--index=no-such", "--query=a", "--to_dtype=int8"], "--to_dtype: found it without --to"),
        (
            ["--images=no-such", "--out=y", "--workdir=z", "--to=/dev/null/a.parquet"],
            "cannot write in",
        ),
        (["--images=no-such", "--out=y"], "--workdir"),
        (["--images=no-such", "--out=y", "--workdir=z"], "--images: there is no folder"),
    ],
)
def test_wrong_flags_are_one_sentence(run, flags, words):
    code, _, error = run(*flags)
    assert code == 1 and words in error and error.count("\n") == 1
