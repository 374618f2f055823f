"""The report of a run: its figures, its pictures, and nothing from outside the file."""

import base64
import html.parser
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import ape_jax
from ape_jax import config as config_lib
from ape_jax import main, pages
from ape_jax.data.labelled import open_labelled
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.pages import queries
from ape_jax.pages.gallery import Gallery
from ape_jax.pages.pictures import Pictures
from ape_jax.terminal import command
from ape_jax.training import loop


class Reader(html.parser.HTMLParser):
    """What a page holds: its text, its tags and every address in it."""

    def __init__(self, page):
        super().__init__()
        self.words, self.images, self.tags, self.addresses = [], [], [], []
        self.feed(page)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.addresses += [found[key] for key in ("src", "href", "data") if key in found]
        if tag == "img":
            self.images.append(found)

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A finished run whose captions would break a careless page."""
    root = tmp_path_factory.mktemp("report")
    lines = [json.loads(line) for line in (tiny / "pairs.jsonl").read_text().splitlines()]
    for line in lines:
        line["image"] = str(tiny / line["image"])
        line["captions"] = [f"<script>a & {line['captions'][0]}</script>", *line["captions"]]
    (root / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = config_lib.default()
    config.image.tower, config.text.tower = str(tiny / "image"), str(tiny / "text")
    config.data.pairs = str(root / "pairs.jsonl")
    config.data.eval = {"own": str(root / "pairs.jsonl")}
    config.text.head.depth, config.train.log_every = 2, 1
    config.train.batch, config.train.steps = 8, 3
    config.cache.dir = str(root / "features")
    loop.train_and_evaluate(config_lib.resolve(config), root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def page(trained):
    return Reader(pages.write(trained).read_text())


def test_the_figures_are_the_summarys(trained, page):
    summary = json.loads((trained / "summary.json").read_text())
    row = re.search(r"own \(24 images, 72 captions\) ([\d. ]+)", page.text)[1].split()
    assert row[1] == f"{100 * summary['eval/own/i2t_r5']:.1f}"
    assert row[6] == f"{summary['eval/own/median_rank_t2i']:.1f}"
    assert re.search(r"chance [\d.]+ [\d.]+ [\d.]+ 4\.2 20\.8 41\.7 12\.5", page.text)
    assert f"{summary['parameters_trained']:,}" in page.text


def test_the_page_begins_with_a_sentence_beside_chance(trained, page):
    share = 100 * json.loads((trained / "summary.json").read_text())["eval/own/t2i_r10"]
    sentence = f"among the first 10 of 24 for {share:.0f} of 100 captions; chance 42."
    assert sentence in page.text[: page.text.index("Curves")]


def test_pictures_are_inside_and_each_is_there_once(trained, page):
    pictures = re.findall(r"url\((.*?)\)", (trained / "report.html").read_text())
    assert len(pictures) == 24 and all("span" in page.tags for _ in pictures)
    for picture in pictures:
        kind, content = picture.split(",", 1)
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(content))).load()


def test_every_query_shows_its_right_answer(trained):
    found = search(trained)
    rows = Gallery("own", found, Pictures(), (255, 255, 255))
    for index, (own, rank) in enumerate(zip(found.image_index, found.caption_ranks)):
        row = rows._caption_row(index)
        assert f"place {rank} of 24" in row and row.count('class="thumb right') == 1
        assert ("…" in row) == (own not in found.best_images(index, 6)) == ("missed" in row)
    for index, rank in enumerate(found.image_ranks):
        row = rows._image_row(index)
        assert f"{rank} of 72" in row and f'<li value="{rank}" class="right">' in row


def test_the_worst_confusions_come_first_and_equal_captions_are_none(trained):
    found = search(trained)
    worst = Gallery("own", found, Pictures(), (255, 255, 255))._worst()
    margins = [found.cosines[c, i] - found.cosines[c, found.image_index[c]] for c, i in worst]
    assert margins == sorted(margins, reverse=True) and min(margins) > 0
    assert not any(found.captions[c] in found.pairs[i].captions for c, i in worst)


def search(trained):
    return queries.search(ape_jax.load(trained), open_pairs(trained.parent / "pairs.jsonl"))


def test_nothing_comes_from_outside_and_nothing_of_the_users_is_run(trained, page):
    assert page.addresses and all(x.startswith("#") for x in page.addresses)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert "<script>a & a red square</script>" in page.text
    styles = re.findall(r"url\((.{5})", (trained / "report.html").read_text())
    assert set(styles) == {"data:"}


def test_links_of_the_contents_lead_somewhere(trained, page):
    source = (trained / "report.html").read_text()
    assert all(source.count(f'id="{x[1:]}"') == 1 for x in page.addresses)


def test_curves_show_every_step(page, trained):
    source = (trained / "report.html").read_text()
    titles = ("Training loss, nats", "Scale, factor on cosines", "Learning rate", "Gradient norm")
    assert all(f'aria-label="{name}"' in source for name in titles)
    assert len(re.search(r'polyline[^>]*points="([^"]+)"', source)[1].split()) == 3
    assert "guessing: ln 8 = 2.08" in page.text


def test_a_run_without_held_out_pairs_says_so_and_shows_its_training_pairs(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    record = tmp_path / "run/config.json"
    flat = json.loads(record.read_text())
    record.write_text(json.dumps({**flat, "data.eval": {}}))
    text = Reader(pages.write(tmp_path / "run").read_text()).text
    assert "was given no held-out pairs" in text and "What it finds: training pairs" in text
    assert "Training has seen them" in text


def test_a_confusion_matrix_is_added_where_classes_are_given(trained, tiny):
    names = ["red square", "blue bar"]
    rows = "".join(f"{tiny}/{n.replace(' ', '-')}.png,{n}\n" for n in names)
    (trained / "labelled.csv").write_text("image,label\n" + rows)
    labelled = open_labelled(trained / "labelled.csv", names)
    text = Reader(pages.write(trained, labelled, ("a {}",)).read_text()).text
    counts = np.array(re.search(r"red square (\d) (\d) blue bar (\d) (\d)", text).groups(), int)
    right = 50 * (counts[0] + counts[3])
    assert counts.sum() == 2 and f"top-1 {right:.1f} %" in text


def test_a_run_that_has_not_ended_is_one_sentence(trained, tmp_path):
    for name in ("config.json",):
        (tmp_path / name).write_text((trained / name).read_text())
    with pytest.raises(UserError, match=r"come to its end \(no summary.json\)"):
        pages.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def run_main(trained, directory, capsys):
    """What the training command prints, on a run that has come to its end."""
    lines = [
        "import json, ml_collections, pathlib",
        "from ape_jax import config as config_lib",
        f"saved = pathlib.Path({str(trained / 'config.json')!r})",
        "def get_config(arg):",
        "    flat = json.loads(saved.read_text())",
        "    return ml_collections.ConfigDict(config_lib.unflatten(flat))",
    ]
    (directory / "config.py").write_text("\n".join(lines))
    argv = ["main", f"--config={directory}/config.py", f"--workdir={trained}"]
    with pytest.raises(SystemExit) as end:
        command.run(main.main, argv)
    assert not end.value.code
    return capsys.readouterr()


def test_training_ends_with_a_report(trained, tmp_path, capsys):
    (trained / "report.html").unlink(missing_ok=True)
    assert f"is in {trained}/report.html" in run_main(trained, tmp_path, capsys).out
    assert (trained / "report.html").stat().st_size > 10_000


def test_a_run_is_whole_without_its_report(trained, tmp_path, capsys, monkeypatch):
    def load(path):
        raise UserError("the tower is gone")

    monkeypatch.setattr(pages.run.encoder, "load", load)
    printed = run_main(trained, tmp_path, capsys)
    assert "no report was written: the tower is gone" in printed.err
    assert "results are in" in printed.out
