"""What an index finds, beside NumPy, and that adding to one encodes only what is new."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from ape_jax import search
from ape_jax.data.table.problems import Problem
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, load_image
from ape_jax.search import build, graph, items, store
from ape_jax.storage import sealed

IDENTITY = dict.fromkeys(
    ("image tower", "text tower", "image preparation", "text preparation", "trained parameters"),
    "a",
)


class MeanColours:
    """Embeds an image as its mean colour and counts what it was asked for."""

    def __init__(self):
        self.encoded = []

    def encode_readable(self, records, skipped, done):
        z = np.zeros((len(records), 3), np.float32)
        for i, record in enumerate(records):
            try:
                colour = load_image(record.image).mean(axis=(0, 1)) + 1
                z[i] = colour / np.linalg.norm(colour)
                self.encoded.append(os.path.basename(record.name))
            except ImageError as error:
                skipped.add(i, Problem.of_image(record.image, error))
            done(i + 1)
        read = np.ones(len(records), bool)
        read[list(skipped.indices)] = False
        return z, read


@pytest.fixture
def folder(tmp_path, rng):
    """Twelve images, one of them in a subfolder, and two files that are none."""
    root = tmp_path / "pictures"
    (root / "below").mkdir(parents=True)
    for i in range(12):
        image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        image.save(root / ("below/11.png" if i == 11 else f"{i:02d}.png"))
    (root / "notes.txt").write_text("no image")
    (root / "zip.png").write_bytes(b"PK\x03\x04 not an image")
    return root


def put(index, spec, **options):
    """Indexes `spec`; gives what was added and the names that were encoded."""
    model = MeanColours()
    source = items.open_images(spec, key="--images")
    options = {"run": "run", "identity": IDENTITY, **options}
    return search.add(index, source, model, **options), model.encoded


def test_small_indices_find_what_numpy_finds(folder, tmp_path, rng):
    put(tmp_path / "index", folder)
    index = search.open_index(tmp_path / "index", IDENTITY)
    queries = rng.normal(size=(5, 3)).astype(np.float32)
    scores = queries @ np.stack([index.vectors[i] for i in range(12)]).T
    for hits, row in zip(index.search(queries, 4), scores):
        assert [place for place, _ in hits] == np.argsort(-row, kind="stable")[:4].tolist()
        np.testing.assert_allclose([cosine for _, cosine in hits], np.sort(row)[::-1][:4], 1e-5)
    assert len(index.search(queries, 99)[0]) == 12


def entries(count):
    """Images without captions."""
    return [store.Entry(str(i), "", (), "") for i in range(count)]


def test_equal_cosines_come_in_the_order_of_the_images():
    record = store.Record(
        run="", identity={}, sources=(), count=6, width=2, folder="state-000001", sha256={}
    )
    vectors = np.array([[0, 1], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]], np.float32)
    index = search.Index(pathlib.Path(), record, entries(6), vectors)
    (hits,) = index.search(np.array([[1, 0]], np.float32), 4)
    assert [place for place, _ in hits] == [1, 3, 4, 0]


@pytest.mark.parametrize("k", [0, -1, 2.0, True, None, "2"])
@pytest.mark.usefixtures("unchecked")
def test_a_number_of_results_that_is_none_is_one_sentence(folder, tmp_path, k):
    put(tmp_path / "index", folder)
    index = search.open_index(tmp_path / "index", IDENTITY)
    with pytest.raises(UserError, match="k: expected a whole number of at least 1, found"):
        index.search(np.ones((1, 3), np.float32), k)
    with pytest.raises(UserError, match=r"queries: expected \[q, 3\], found \[1, 4\]"):
        index.search(np.ones((1, 4), np.float32), 2)


def test_a_graph_finds_nearly_what_numpy_finds(tmp_path, rng):
    pytest.importorskip("usearch", reason="usearch is not installed (ape_jax[index])")
    vectors = rng.normal(size=(6000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folder = tmp_path / "state-000001"
    folder.mkdir()
    graph.build(vectors[:4000], folder / "first")
    graph.build(vectors, folder / store.GRAPH, graph.read(folder / "first", writable=True))
    record = store.Record(
        run="", identity={}, sources=(), count=6000, width=32, folder=folder.name,
        sha256={store.GRAPH: ""},
    )  # fmt: skip
    index = search.Index(tmp_path, record, entries(6000), vectors)
    queries = vectors[::100] + 0.1 * rng.normal(size=(60, 32)).astype(np.float32)
    found, exact = index.search(queries, 10), index.search(queries, 10, exact=True)
    hit = [len({p for p, _ in a} & {p for p, _ in b}) for a, b in zip(found, exact)]
    assert np.mean(hit) >= 9.5
    assert found[0][0] == pytest.approx(exact[0][0], abs=1e-6)
    assert len(index.search(queries[:1], 10)[0]) == 10


def test_only_new_and_changed_files_are_encoded(folder, tmp_path):
    index = tmp_path / "index"
    added, encoded = put(index, folder)
    assert (added.total, added.encoded, len(added.unreadable)) == (12, 12, 1)
    assert "zip.png" in added.unreadable[0] and added.notes == ("1 files of other kinds (1 .txt)",)
    Image.new("RGB", (9, 9), "red").save(folder / "03.png")
    Image.new("RGB", (9, 9), "blue").save(folder / "99.png")
    (folder / "05.png").unlink()
    added, encoded = put(index, folder)
    assert encoded == ["03.png", "99.png"]
    assert (added.total, added.kept, added.gone) == (12, 10, 1)
    opened = search.open_index(index, IDENTITY)
    ((place, cosine),) = opened.search(np.array([[1, 0, 0]], np.float32), 1)[0]
    assert opened.entries[place].name == str(folder / "03.png") and cosine > 0.99
    for row, entry in zip(opened.vectors, opened.entries):
        colour = load_image(entry.name).mean(axis=(0, 1)) + 1
        np.testing.assert_allclose(row, colour / np.linalg.norm(colour), rtol=1e-5)
    assert [p.name for p in index.glob("state-*")] == [opened.record.folder]


def test_sources_live_side_by_side(folder, tmp_path):
    index = tmp_path / "index"
    put(index, folder)
    lines = [{"image": "00.png", "caption": "nought"}, {"image": "01.png", "caption": "one"}]
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    added, encoded = put(index, pairs)
    assert (added.total, added.kept, encoded) == (12, 2, [])
    entries = search.open_index(index, IDENTITY).entries
    assert [e.captions for e in entries][:3] == [("nought",), ("one",), ()]
    before = (index / store.RECORD).read_bytes()
    (folder / "zip.png").unlink()
    put(index, folder)
    assert (index / store.RECORD).read_bytes() == before


def test_an_encoder_that_dies_leaves_the_old_index_or_none(folder, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    index = tmp_path / "index"
    with monkeypatch.context() as patch:
        patch.setattr(MeanColours, "encode_readable", die)
        with pytest.raises(KeyboardInterrupt):
            put(index, folder)
        assert not index.exists()
    put(index, folder)
    before = (index / store.RECORD).read_bytes()
    Image.new("RGB", (9, 9), "blue").save(folder / "99.png")
    monkeypatch.setattr(store, "write_entries", die)
    with pytest.raises(KeyboardInterrupt):
        put(index, folder)
    assert (index / store.RECORD).read_bytes() == before and len(list(index.glob("state-*"))) == 1
    assert len(search.open_index(index, IDENTITY)) == 12


def test_a_graph_is_made_of_large_indices_and_grows(folder, tmp_path):
    pytest.importorskip("usearch", reason="usearch is not installed (ape_jax[index])")
    put(tmp_path / "index", folder, graph_from=4)
    Image.new("RGB", (9, 9), "blue").save(folder / "99.png")
    put(tmp_path / "index", folder, graph_from=4)
    index = search.open_index(tmp_path / "index", IDENTITY)
    assert len(index._graph) == len(index) == 13
    query = np.array([[0.1, 0.1, 0.9]], np.float32)
    assert index.search(query, 3) == index.search(query, 3, exact=True)


def test_another_model_is_refused(folder, tmp_path):
    put(tmp_path / "index", folder)
    other = IDENTITY | {"text tower": "b"}
    with pytest.raises(UserError, match=r"by a run \(run\) with another text tower"):
        search.open_index(tmp_path / "index", other)
    with pytest.raises(UserError, match="another text tower"):
        put(tmp_path / "index", folder, identity=other)


@pytest.mark.parametrize("name", [store.ITEMS, store.VECTORS])
def test_a_flipped_bit_is_found(folder, tmp_path, name):
    put(tmp_path / "index", folder)
    (file,) = (tmp_path / "index").glob(f"state-*/{name}")
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        search.open_index(tmp_path / "index", IDENTITY)


def test_any_bit_of_the_record_is_noticed_and_that_of_the_version_before_opens(
    folder, tmp_path, rng
):
    put(tmp_path / "index", folder)
    file = tmp_path / "index" / store.RECORD
    whole = file.read_bytes()
    for bit in rng.choice(8 * len(whole), 80, replace=False).tolist():
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        try:
            record = store.read_record(tmp_path / "index", "--index")
        except UserError as error:
            assert "\n" not in str(error)
            continue
        file.write_bytes(whole)  # White space, on which nothing depends.
        assert record == store.read_record(tmp_path / "index", "--index")
    before = sealed.unseal(json.loads(whole)) | {"format": 1}
    file.write_text(json.dumps(before))
    assert len(search.open_index(tmp_path / "index", IDENTITY)) == 12


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "folder": "../.."}']
)
def test_a_damaged_record_is_one_sentence(tmp_path, text):
    (tmp_path / store.RECORD).write_text(text)
    with pytest.raises(UserError, match="make it again") as error:
        search.open_index(tmp_path, IDENTITY)
    assert "\n" not in str(error.value)


def test_a_directory_of_someones_own_is_left_alone(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "state-000007")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(UserError, match="holds other things"):
        put(tmp_path, folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_what_cannot_be_indexed_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/zip.png").write_bytes(b"PK\x03\x04")
    for spec, words in [
        ("", "found nothing"),
        (tmp_path / "no-such", "there is no folder"),
        ("a\0b", "there is no folder"),
        (tmp_path / "no-such.png", "there is no folder"),
        (tmp_path / "no-such.jsonl", "there is no file"),
        (tmp_path / "empty", r"holds no image \(0 other files\)"),
        (tmp_path / "bad", "no image of .* can be read"),
    ]:
        with pytest.raises(UserError, match=words) as error:
            put(tmp_path / "index", spec)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "index").exists()


def test_images_inside_other_files_are_found_again(folder, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("00", "01"):
            (folder / f"{name}.txt").write_text(f"the {name}")
            tar.add(folder / f"{name}.png", f"{name}.png")
            tar.add(folder / f"{name}.txt", f"{name}.txt")
    added, _ = put(tmp_path / "index", tmp_path / "a.tar")
    index = search.open_index(tmp_path / "index", IDENTITY)
    assert added.total == 2 and index.entries[1].captions == ("the 01",)
    np.testing.assert_array_equal(load_image(index.image(1)), load_image(folder / "01.png"))
    assert put(tmp_path / "index", tmp_path / "a.tar")[1] == []


def test_progress_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_CHUNK", 5)
    seen = []
    put(tmp_path / "index", folder, tick=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 13) for i in range(1, 14)]
