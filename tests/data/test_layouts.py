"""One data set in the layouts that data sets are published in: the same pairs, the same figures."""

import csv
import hashlib
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ape_jax.data import open_pairs
from ape_jax.evaluators.tasks import evaluate_retrieval
from ape_jax.features.dataset import captions_of
from ape_jax.images.decode import load_image

COUNTS = (1, 2, 3, 4, 2, 2, 3, 1, 4, 3, 2, 3)  # Captions of each image, 30 in all.
COLOURS = [tuple(map(int, row)) for row in np.random.default_rng(0).integers(0, 256, (12, 3))]
WORDS = ("a {} square", "eckig, {}", 'a "{}" one', "ein {} | Bild", "{} für alle")
# Colours near to the right one, so that retrieval is neither perfect nor chance.
CAPTIONS = {
    f"{i:012d}.png": [
        WORDS[(i + j) % 5].format(
            " ".join(str(int(c + 60 * np.sin(7 * i + 3 * j + k))) for k, c in enumerate(COLOURS[i]))
        )
        for j in range(COUNTS[i])
    ]
    for i in range(12)
}
ROWS = [(name, caption) for name, captions in CAPTIONS.items() for caption in captions]


class Encoder:
    """Embeds an image by its mean colour, and a caption by the numbers in it."""

    def encode_image(self, images):
        return _unit([np.asarray(load_image(image)).mean((0, 1)) for image in images])

    def encode_text(self, texts):
        found = [
            [float(w) for w in text.replace('"', " ").split() if _is_number(w)] for text in texts
        ]
        return _unit(found)


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdigit()


def _unit(rows) -> np.ndarray:
    z = np.asarray(rows, np.float64) - 128
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Encoded images by name."""
    made = {}
    for name, colour in zip(CAPTIONS, COLOURS, strict=True):
        out = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(out, "PNG")
        made[name] = out.getvalue()
    return made


def put(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in images.items():
        (folder / name).write_bytes(content)


def lines(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def jsonl(folder, images):
    put(folder, images)
    rows = [json.dumps({"image": n, "captions": c}) for n, c in CAPTIONS.items()]
    return lines(folder / "pairs.jsonl", rows)


def jsonl_by_caption(folder, images):
    put(folder / "img", images)
    rows = [{"id": i, "file_name": f"img/{n}", "text": c} for i, (n, c) in enumerate(ROWS)]
    return lines(folder / "pairs.jsonl", map(json.dumps, rows))


def table(folder, images, name="pairs.csv", **dialect):
    put(folder, images)
    with open(folder / name, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, **dialect)
        writer.writerow(["id", "image", "caption"])
        writer.writerows([i, *row] for i, row in enumerate(ROWS))
    return folder / name


def tabs(folder, images):
    put(folder, images)
    return lines(folder / "pairs.tsv", ["image\tcaption", *("\t".join(row) for row in ROWS)])


def parquet_paths(folder, images):
    put(folder, images)
    columns = {"image": [r[0] for r in ROWS], "caption": [r[1] for r in ROWS]}
    pq.write_table(pa.table(columns), folder / "pairs.parquet", row_group_size=7)
    return folder / "pairs.parquet"


def parquet_bytes(folder, images):
    columns = {"jpg": [images[r[0]] for r in ROWS], "text": [r[1] for r in ROWS]}
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def parquet_structs(folder, images):
    structs = [{"bytes": images[name], "path": name} for name in CAPTIONS]
    columns = {"image": structs, "captions": list(CAPTIONS.values())}
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def tar_json(folder, images):
    members = {}
    for name, captions in CAPTIONS.items():
        members[name] = images[name]
        members[name.replace("png", "json")] = json.dumps({"captions": captions}).encode()
    return write_tar(folder / "pairs.tar", members)


def tar_lines(folder, images):
    members = {}
    for name, captions in CAPTIONS.items():
        members[name] = images[name]
        members[name.replace("png", "txt")] = "\n".join(captions).encode()
    return write_tar(folder / "0.tar", members)


def texts_beside(folder, images):
    put(folder / "set", images)
    for name, captions in CAPTIONS.items():
        lines(folder / "set" / name.replace("png", "txt"), captions)
    return folder / "set"


def image_folder(folder, images):
    put(folder / "train", images)
    rows = [json.dumps({"file_name": n, "text": c}) for n, c in ROWS]
    lines(folder / "train" / "metadata.jsonl", rows)
    return folder / "train"


def coco(folder, images):
    put(folder / "val2017", images)
    (folder / "annotations").mkdir()
    ids = {name: 9000 - i for i, name in enumerate(CAPTIONS)}
    document = {
        "info": {"year": 2017},
        "images": [{"id": key, "file_name": name} for name, key in ids.items()],
        "annotations": [
            {"id": i, "image_id": ids[name], "caption": c} for i, (name, c) in enumerate(ROWS)
        ],
    }
    return write_json(folder / "annotations" / "captions_val2017.json", document)


def write_json(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def karpathy(folder, images):
    put(folder / "val2014", images)
    found = [
        {
            "filepath": "val2014",
            "filename": name,
            "split": "test",
            "sentences": [{"raw": caption, "tokens": caption.split()} for caption in captions],
        }
        for name, captions in CAPTIONS.items()
    ]
    return f"{write_json(folder / 'dataset_coco.json', {'images': found})}:test"


def flickr(folder, images):
    put(folder / "flickr30k-images", images)
    rows = [f"{n}#{i}\t{c}" for n, captions in CAPTIONS.items() for i, c in enumerate(captions)]
    return lines(folder / "results_20130124.token", rows)


def bars(folder, images):
    put(folder / "flickr30k_images", images)
    head = ["image_name| comment_number| comment"]
    return lines(folder / "results.csv", head + [f"{n}| 0| {c}" for n, c in ROWS])


def commas(folder, images):
    put(folder / "Images", images)
    return lines(folder / "captions.txt", ["image,caption", *(f"{n},{c}" for n, c in ROWS)])


def conversations(folder, images):
    put(folder / "images", images)
    items = [
        {
            "id": str(i),
            "image": name,
            "conversations": [
                {"from": "human", "value": "What is this?\n<image>"},
                {"from": "gpt", "value": caption},
            ],
        }
        for i, (name, caption) in enumerate(ROWS)
    ]
    return write_json(folder / "llava.json", items)


def albef(folder, images):
    put(folder / "coco", images)
    items = [
        {"image": f"coco/{name}", "caption": captions, "image_id": i}
        for i, (name, captions) in enumerate(CAPTIONS.items())
    ]
    return write_json(folder / "coco_test.json", items)


def textcaps(folder, images):
    put(folder / "train_images", {n.replace("png", "jpg"): x for n, x in images.items()})
    items = [
        {"image_id": n.removesuffix(".png"), "caption_str": c, "flickr_original_url": "http://x"}
        for n, c in ROWS
    ]
    return write_json(folder / "TextCaps_0.1_val.json", {"data": items})


LAYOUTS = [
    jsonl, jsonl_by_caption, table, tabs, parquet_paths, parquet_bytes, parquet_structs, tar_json,
    tar_lines, texts_beside, image_folder, coco, karpathy, flickr, bars, commas, conversations,
    albef, textcaps,
]  # fmt: skip


@pytest.fixture(scope="module")
def figures(tmp_path_factory, images):
    """The figures of the first layout."""
    return evaluate_retrieval(Encoder(), open_pairs(jsonl(tmp_path_factory.mktemp("a"), images)))


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_same_pairs_and_figures(write, tmp_path, images, figures):
    pairs = open_pairs(write(tmp_path, images))
    expected = [(hashlib.sha256(images[name]).digest(), tuple(c)) for name, c in CAPTIONS.items()]
    assert [(h, p.captions) for h, p in zip(pairs.image_hashes, pairs, strict=True)] == expected
    assert pairs.num_captions == 30
    captions = captions_of(pairs)
    assert [captions.texts[i] for i in captions.text_index] == [caption for _, caption in ROWS]
    assert captions.counts.tolist() == list(COUNTS)
    assert evaluate_retrieval(Encoder(), pairs) == figures


def test_the_figures_are_those_of_clip_benchmark_on_its_own_layout(tmp_path, images, figures):
    torch = pytest.importorskip("torch")
    metric = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    read = _retrieval_set(tar_lines(tmp_path, images))

    class Model:
        encode_image = staticmethod(lambda x: x)
        encode_text = staticmethod(lambda x: x)

    def tokenizer(texts):
        return torch.from_numpy(Encoder().encode_text(texts))

    batches = [
        (torch.from_numpy(_unit([image.mean((0, 1)) for image, _ in part])), [t for _, t in part])
        for part in (read[:5], read[5:10], read[10:])
    ]
    theirs = metric.evaluate(Model, batches, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    ours = {
        f"{name}_retrieval_recall@{k}": float(np.float32(figures[f"{way}_r{k}"]))
        for name, way in (("image", "t2i"), ("text", "i2t"))
        for k in (1, 5, 10)
    }
    assert theirs == ours
    assert 0.2 < ours["image_retrieval_recall@1"] < 1


def _retrieval_set(path):
    """Pixels and captions as clip_benchmark reads them: members by key, `str.splitlines`."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, ending = member.name.partition(".")
            found.setdefault(key, {})[ending] = tar.extractfile(member).read()
    return [
        (np.asarray(Image.open(io.BytesIO(record["png"]))), str.splitlines(record["txt"].decode()))
        for record in found.values()
    ]
