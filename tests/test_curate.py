"""`ape-jax curate`: from a pool and a target to a pairs file that others read."""

import io
import json
import pathlib
import tarfile

import pytest

from ape_jax import curate, data
from ape_jax.terminal import command


@pytest.fixture
def run(capsys):
    """Runs the command here; its exit code, output and errors."""

    def run(*words):
        code = 0
        try:
            command.run(curate.main, ["curate", *map(str, words)])
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def words(tiny, tmp_path):
    """The towers of the tiny world, its pairs as the pool, and where the chosen ones go."""
    return (
        f"--config=few_pairs:image={tiny / 'image'},text={tiny / 'text'}",
        f"--config.cache.dir={tmp_path / 'features'}",
        f"--pairs={tiny / 'pairs.jsonl'}",
        f"--out={tmp_path / 'chosen.jsonl'}",
        "--mismatched=1",
        "--near=1",
    )


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_names_are_served_by_their_own_pairs(tiny, words, run, tmp_path):
    (tmp_path / "names.txt").write_text("a red square\na blue bar\n")
    page = tmp_path / "x.html"
    code, out, _ = run(
        *words, f"--target={tmp_path / 'names.txt'}", "--count=4", f"--html={page}", "--json"
    )
    found, rows = json.loads(out), _rows(tmp_path / "chosen.jsonl")
    assert code == 0 and found["chosen"] == 4 and found["target"]["kind"] == "names"
    assert {"red-square", "blue-bar"} <= {row["id"] for row in rows}
    assert sum(found["left_out"].values()) == 20
    assert all(pathlib.Path(row["image"]).is_absolute() for row in rows)
    pairs = data.open_pairs(tmp_path / "chosen.jsonl")
    assert [pair.id for pair in pairs] == [row["id"] for row in rows]
    assert [list(pair.captions) for pair in pairs] == [row["captions"] for row in rows]
    assert "a blue bar" in page.read_text() and "<script" not in page.read_text()


@pytest.mark.parametrize("kind", ["images", "pairs"])
def test_images_and_pairs_are_served_by_their_like(tiny, words, run, tmp_path, kind):
    (tmp_path / "target").mkdir()
    image = tmp_path / "target/some.png"
    image.write_bytes((tiny / "green-circle.png").read_bytes())
    target = tmp_path / "target"
    if kind == "pairs":
        target = tmp_path / "target.jsonl"
        row = {"image": str(image), "caption": "a green circle"}
        target.write_text(json.dumps(row))
    code, out, _ = run(*words, f"--target={target}", "--count=1", "--json")
    assert code == 0 and json.loads(out)["target"]["kind"] == kind
    assert _rows(tmp_path / "chosen.jsonl")[0]["id"] == "green-circle"


def test_near_duplicates_and_mismatched_pairs_are_left_out(tiny, words, run, tmp_path):
    lines = _rows(tiny / "pairs.jsonl")
    copy = {**lines[0], "image": "copy.png", "id": "copy"}
    for line in lines:
        line["image"] = str(tiny / line["image"])
    (tmp_path / "copy.png").write_bytes((tiny / "red-square.png").read_bytes())
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(x) + "\n" for x in [*lines, copy]))
    (tmp_path / "names.txt").write_text("a red square\n")
    page = tmp_path / "x.html"
    code, out, err = run(
        *words[:2], f"--pairs={tmp_path / 'pool.jsonl'}", words[3], "--near=0.99999",
        "--mismatched=0.9", f"--target={tmp_path / 'names.txt'}", "--count=6", f"--html={page}",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["left_out"]["near-duplicate"] == 1 and found["unrelated"] is not None
    assert sum(found["left_out"].values()) + found["chosen"] == found["pool"] == 25
    assert len({row["id"] for row in _rows(tmp_path / "chosen.jsonl")} & {"copy", "red-square"}) < 2
    assert "Near-duplicates" in page.read_text()


def test_images_inside_of_files_are_written_beside_the_pairs(tiny, words, run, tmp_path):
    with tarfile.open(tmp_path / "pool.tar", "w") as tar:
        for line in _rows(tiny / "pairs.jsonl"):
            content = (tiny / line["image"]).read_bytes()
            for ending, part in (("png", content), ("txt", line["captions"][0].encode())):
                member = tarfile.TarInfo(f"{line['id']}.{ending}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
    (tmp_path / "names.txt").write_text("a red square\n")
    pool = f"--pairs={tmp_path / 'pool.tar'}"
    target = f"--target={tmp_path / 'names.txt'}"
    code, out, _ = run(*words[:2], pool, *words[3:], target, "--count=3", "--json")
    assert code == 0 and json.loads(out)["images_written"] == 3
    pairs = data.open_pairs(tmp_path / "chosen.jsonl")
    for row, pair in zip(_rows(tmp_path / "chosen.jsonl"), pairs, strict=True):
        name = pair.captions[0].removeprefix("a ").replace(" ", "-")
        content = (tmp_path / row["image"]).read_bytes()
        assert content == (tiny / f"{name}.png").read_bytes()


def test_the_page_escapes_what_the_user_wrote(tiny, words, run, tmp_path):
    evil = "<script>alert(1)</script>"
    lines = _rows(tiny / "pairs.jsonl")
    for number, line in enumerate(lines):
        line |= {
            "image": str(tiny / line["image"]),
            "captions": [f"{evil} {number}"],
            "id": evil + str(number),
        }
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (tmp_path / "names.txt").write_text(f"{evil}\n")
    page = tmp_path / "x.html"
    code, _, err = run(
        *words[:2], f"--pairs={tmp_path / 'pool.jsonl'}", *words[3:],
        f"--target={tmp_path / 'names.txt'}", "--count=3", f"--html={page}",
    )  # fmt: skip
    assert code == 0, err
    assert "&lt;script&gt;" in page.read_text() and "<script" not in page.read_text()


def test_a_run_names_the_towers(tiny, tiny_run, words, run, tmp_path):
    (tmp_path / "names.txt").write_text("a red square\n")
    code, out, err = run(
        f"--workdir={tiny_run}", *words[2:], f"--target={tmp_path / 'names.txt'}", "--count=1"
    )
    assert code == 0, err
    assert _rows(tmp_path / "chosen.jsonl")[0]["id"] == "red-square" and "chosen" in out


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--pairs": ""}, "error: config.data.pairs: expected a pairs file"),
        ({"--target": ""}, "error: --target: expected a text file of names"),
        ({"--target": "none.txt"}, 'error: --target="none.txt" is not a file'),
        ({"--count": "0"}, "error: --count: expected the number of pairs"),
        ({"--count": "25"}, "error: --count: the pool has 24 pairs"),
        ({"--out": "x.csv"}, "error: --out: pairs are written as JSON lines"),
        ({"--workdir": "DIR"}, "found both"),
        ({"--near": "2"}, "--near"),
    ],
)
def test_what_is_wrong_is_one_sentence(tiny, words, run, tmp_path, changed, sentence):
    (tmp_path / "names.txt").write_text("a red square\n")
    asked = dict(word.split("=", 1) for word in words)
    asked |= {"--target": str(tmp_path / "names.txt"), "--count": "2", **changed}
    code, _, err = run(*(f"{name}={value}" for name, value in asked.items()))
    assert code in (1, 2) and sentence in err and "Traceback" not in err, err
    assert not (tmp_path / "chosen.jsonl").exists()
