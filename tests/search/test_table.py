"""The table of an index, as DuckDB, pandas and Arrow read it, ranks as the index does."""

import json
import os
import pathlib

import numpy as np
import pytest

from ape_jax.errors import UserError
from ape_jax.search import Index, store, table
from ape_jax.storage import disk

WIDTH = 24


def index_of(vectors, captions=False, names=None):
    entries = [
        store.Entry(name, "", (f"caption {i}", "ein Bild")[: i % 3] if captions else (), "source")
        for i, name in enumerate(names or [f"/photos/{i}.png" for i in range(len(vectors))])
    ]
    record = store.Record(
        run="/runs/a", identity={"text tower": "b"}, sources=("source",), count=len(vectors),
        width=vectors.shape[1], folder="state-000001", sha256={},
    )  # fmt: skip
    return Index(pathlib.Path(), record, entries, vectors)


@pytest.fixture
def vectors(rng):
    found = rng.normal(size=(500, WIDTH)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a table in blocks of 100 rows; gives its path."""
    monkeypatch.setattr(table, "_NUMBERS", 100 * WIDTH)

    def write(index, dtype="float32"):
        path = table.check_target(str(tmp_path / f"{dtype}.parquet"))
        assert table.write(index, path, dtype) == (path.stat().st_size, 0)
        return path

    return write


@pytest.mark.parametrize("function", ["array_cosine_similarity", "array_inner_product"])
@pytest.mark.parametrize("dtype", table.DTYPES)
def test_duckdb_gives_the_ranks_of_the_index(write, vectors, rng, dtype, function):
    duckdb = pytest.importorskip("duckdb")
    index = index_of(vectors)
    path = write(index, dtype)
    if dtype == "float32":
        queries = rng.normal(size=(20, WIDTH)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    else:
        queries = vectors[:20]
    vector = f"vector::FLOAT[{WIDTH}]"
    scale = "scale * " if dtype == "int8" and function == "array_inner_product" else ""
    ask = (
        f"SELECT id, path, {scale}{function}({vector}, ?::FLOAT[{WIDTH}]) AS cosine "
        f"FROM '{path}' ORDER BY cosine DESC, id LIMIT 5"
    )
    for query, hits in zip(queries, index.search(queries, 5)):
        rows = duckdb.execute(ask, [query.tolist()]).fetchall()
        kept = 5 if dtype == "float32" else 1  # Of others the first is certain.
        assert [row[0] for row in rows[:kept]] == [place for place, _ in hits[:kept]]
        assert rows[0][1] == index.entries[rows[0][0]].name
        tolerance = {"float32": 1e-6, "float16": 1e-3, "int8": 1e-2}[dtype]
        np.testing.assert_allclose([r[2] for r in rows], [c for _, c in hits], atol=tolerance)


@pytest.mark.parametrize("dtype", table.DTYPES)
def test_arrow_and_pandas_read_the_vectors(write, vectors, dtype):
    import pandas
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write(index_of(vectors), dtype)
    found = pq.read_table(path)
    columns = ["path", "id", "vector", *(["scale"] if dtype == "int8" else [])]
    assert found.column_names == columns and pq.read_metadata(path).num_row_groups == 5
    # The other columns and the footer of five small groups are in it too.
    assert path.stat().st_size < vectors.size * np.dtype(dtype).itemsize + 30_000
    assert found.schema.field("vector").type == pa.list_(pa.from_numpy_dtype(dtype), WIDTH)
    about = json.loads(found.schema.metadata[b"ape_jax.index"])
    assert about == {"run": "/runs/a", "identity": {"text tower": "b"}, "dtype": dtype, "width": 24}
    frame = pandas.read_parquet(path)
    got = np.stack(frame["vector"])
    assert got.dtype == dtype and frame["id"].tolist() == list(range(500))
    if dtype == "int8":
        got = got * frame["scale"].to_numpy()[:, None]
    if dtype == "float32":
        np.testing.assert_array_equal(got, vectors)
    # float16: half a step of 2**-11 relative; int8: half a step of the largest number / 127.
    np.testing.assert_allclose(got, vectors, atol=np.abs(vectors).max() / 250)


def test_captions_are_a_column_where_there_are_any(write, vectors):
    import pyarrow.parquet as pq

    found = pq.read_table(write(index_of(vectors[:120], captions=True)))
    assert found["captions"].to_pylist()[99:102] == [
        [],
        ["caption 100"],
        ["caption 101", "ein Bild"],
    ]


def test_a_vector_of_zeros_stays_one(write, vectors):
    import pyarrow.parquet as pq

    vectors[3] = 0
    found = pq.read_table(write(index_of(vectors), "int8"))
    assert found["scale"][3].as_py() == 1 and not any(found["vector"][3].as_py())


def test_names_that_are_no_text_are_written_with_escapes_and_counted(tmp_path, vectors):
    import pyarrow.parquet as pq

    names = [os.fsdecode(b"/photos/\xff.png"), "/photos/ā.png"]
    path = tmp_path / "a.parquet"
    assert table.write(index_of(vectors[:2], names=names), path, "float32")[1] == 1
    assert pq.read_table(path)["path"].to_pylist() == ["/photos/\\udcff.png", "/photos/ā.png"]


def test_a_target_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "there.parquet").touch()
    os.symlink("nowhere", tmp_path / "link.parquet")
    for path, words in [
        ("there.parquet", "exists; name a file that does not"),
        ("link.parquet", "exists; name a file that does not"),
        ("there.parquet/a.parquet", "cannot write in .*there.parquet"),
        ("a.csv", "found the ending '.csv'; write a name that ends in .parquet"),
        ("a", "no ending"),
        (".parquet", "no ending"),
        ("", "no ending"),
    ]:
        with pytest.raises(UserError, match=words) as error:
            table.check_target(os.path.join(tmp_path, path))
        assert "\n" not in str(error.value)
    assert table.check_target(str(tmp_path / "new/folder/A.PARQUET")).name == "A.PARQUET"


def test_a_full_disk_leaves_nothing(tmp_path, vectors, monkeypatch):
    path = tmp_path / "a.parquet"

    def full(path):
        raise OSError(28, "full")

    monkeypatch.setattr(table.atomic, "sync", full)
    with pytest.raises(UserError, match=r"--to: .* cannot be written .*free some space"):
        table.write(index_of(vectors), path, "float32")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: type("U", (), {"free": 10}))
    with pytest.raises(UserError, match="--to: the vectors need 0 MB but only 0 MB are free"):
        table.write(index_of(vectors), path, "float32")
    assert not list(tmp_path.iterdir())
