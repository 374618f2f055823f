"""The icon pairs, made from a small package in the real one's layout; the real one is slow."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ape_jax.data.specs import open_pairs
from ape_jax.demo import __main__ as command
from ape_jax.demo.icons import alike as icons_alike
from ape_jax.demo.icons import pairs as icons
from ape_jax.demo.icons import plan as icons_plan
from ape_jax.demo.icons import render as icons_render
from ape_jax.errors import UserError

TESTS = icons.SPLITS[1:]


def records(builder, split):
    return list(builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))


@pytest.fixture
def builder(small_icons):
    return icons.open_builder()


def test_records_hold_caption_licence_and_maker(builder):
    record = next(r for r in records(builder, "train") if r["set"] == b"beta")
    last = record["name"].decode().removeprefix("thing-")
    assert {key: value.decode() for key, value in record.items() if key != "image"} == {
        "id": f"beta:thing-{last}",
        "caption": f"thing {last}",
        "concept": " ".join(sorted(["thing", last])),
        "name": f"thing-{last}",
        "set": "beta",
        "title": "The beta",
        "author": "Maker B",
        "licence": "MIT",
        "category": "UI 24px",
    }
    assert {r["author"] for r in records(builder, "test_sets")} == {b"Marketeq"}


def test_images_are_the_renders_of_their_svg(builder, icon_sets):
    beta = next(one for one in icon_sets if one["prefix"] == "beta")
    record = next(r for r in records(builder, "train") if r["set"] == b"beta")
    assert record["image"] == icons_render.render(
        icons_render.document(beta, record["name"].decode())
    )
    decoded = builder.as_data_source("test")[0]["image"]
    assert decoded.shape == (112, 112, 4) and decoded.dtype == np.uint8


def test_no_concept_is_in_two_splits_and_no_held_out_maker_in_train(builder):
    found = {split: records(builder, split) for split in icons.SPLITS}
    concepts = {split: {r["concept"] for r in rows} for split, rows in found.items()}
    assert sum(map(len, concepts.values())) == len(set.union(*concepts.values()))
    makers = {split: {r["author"].decode() for r in rows} for split, rows in found.items()}
    assert makers["test_sets"] <= icons_plan.HELD_OUT_MAKERS
    assert not makers["train"] & icons_plan.HELD_OUT_MAKERS


def test_alike_drawings_are_left_out_and_counted(builder):
    dropped = builder.info.metadata["dropped"]
    # Maker A's white one; "<path" cannot be drawn.
    assert dropped["drawings that cannot be seen on white"] == 2
    assert dropped["drawings nearly equal to another of their concept"] >= 1
    assert dropped["drawings of test nearly equal to one of train"] >= 1
    ids = {r["id"] for split in icons.SPLITS for r in records(builder, split)}
    assert not {b"alpha:snow-hare", b"alpha:broken-tag"} & ids


def test_what_is_dropped_and_kept_adds_up(builder, icon_sets):
    kept = sum(info.num_examples for info in builder.info.splits.values())
    dropped = builder.info.metadata["dropped"]
    total = sum(len(one["icons"]) for one in icon_sets)
    assert kept + sum(dropped.values()) - dropped["aliases"] == total


def test_metadata_lists_the_sets_that_are_used(builder):
    assert builder.info.metadata["sets"] == {
        "alpha": {"title": "The alpha", "author": "Maker A", "licence": "MIT"},
        "beta": {"title": "The beta", "author": "Maker B", "licence": "MIT"},
        "gamma": {"title": "The gamma", "author": "Marketeq", "licence": "MIT"},
    }
    concepts = {split: {r["concept"] for r in records(builder, split)} for split in icons.SPLITS}
    assert builder.info.metadata["concepts"] == {s: len(c) for s, c in concepts.items()}


def test_a_slice_is_a_sample_of_all_sets_and_the_start_of_a_longer_one(builder):
    whole = [r["id"] for r in records(builder, "train")]
    part = [r["id"] for r in records(builder, "train[:60]")]
    assert part == whole[:60]
    share = np.mean([one.startswith(b"beta") for one in part])
    assert 0.25 < share < 0.75  # half the records; sorted ones would start with all of alpha


def test_two_builds_are_the_same_bytes(icon_package, small_icons, tmp_path):
    icons.write(icon_package, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            first = small_icons / "icons" / path.relative_to(tmp_path)
            assert path.read_bytes() == first.read_bytes(), path.name


def test_prepared_icons_are_not_made_again(small_icons, monkeypatch):
    monkeypatch.setattr(icons, "_build", lambda work: pytest.fail("they are made again"))
    assert icons.prepare() == small_icons / "icons"


def test_a_build_that_stops_leaves_nothing(tmp_path, monkeypatch, npm_of, icon_package):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path))
    npm_of(icon_package)
    monkeypatch.setattr(icons, "_draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        icons.prepare()
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["icons.lock"]


def test_the_package_is_not_kept(small_icons):
    assert not list(small_icons.rglob("*.tgz")) and not list(small_icons.glob(".*partial"))


def test_pairs_of_a_spec(small_icons):
    pairs = open_pairs("demo:icons:test_sets")
    assert len({pair.id for pair in pairs}) == len(pairs) > 20
    assert all(pair.id.startswith("gamma:thing-") for pair in pairs)
    assert all(len(pair.captions) == 1 for pair in pairs)
    assert pairs[0].captions[0] == pairs[0].id.removeprefix("gamma:").replace("-", " ")
    content = pairs[0].image.content
    assert content[:4] == b"\x89PNG" and len(content) == pairs[0].image.nbytes


def test_pairs_of_a_slice(small_icons):
    whole = open_pairs("demo:icons:train")
    assert [p.id for p in open_pairs("demo:icons:train[:7]")] == [p.id for p in whole][:7]
    tenth = open_pairs("demo:icons:train[10%:20%]")
    assert abs(len(tenth) - len(whole) / 10) <= 1
    assert not {p.id for p in tenth} & {p.id for p in open_pairs("demo:icons:train[:10%]")}


def test_pairs_of_an_emoji_slice():
    whole = {p.id for p in open_pairs("demo:twemoji:train")}
    part = [p.id for p in open_pairs("demo:twemoji:train[:50]")]
    assert len(part) == 50 and set(part) <= whole
    assert part == [p.id for p in open_pairs("demo:openmoji/de:train[:50]")]


def test_an_icon_may_be_called_null(small_icons):
    captions = [p.captions for split in icons.SPLITS for p in open_pairs(f"demo:icons:{split}")]
    assert ("null",) in captions


@pytest.mark.parametrize(
    "spec, message",
    [
        ("demo:icons", "is not complete; write"),
        ("demo:icons:dev", "split 'dev' is unknown; write one of train, validation, test, test_se"),
        ("demo:icons/de:test", "language 'de' is unknown; write one of en"),
        ("demo:icon:test", "style 'icon' is unknown; write one of twemoji, openmoji, noto, icons"),
        (
            "demo:icons:test[:99999]",
            r"has no such slice \(.*99999.*\); write one such",
        ),
        ("demo:icons:test[x]", "has no such slice"),
        ("demo:twemoji:test[:99999]", r"data.pairs: .*no slice 'test\[:99999\]'; write one"),
    ],
)
def test_wrong_specs_are_one_sentence(small_icons_cache, monkeypatch, spec, message):
    if "icon" in spec:
        monkeypatch.setenv("APE_JAX_CACHE", str(small_icons_cache))
    with pytest.raises(UserError, match=message):
        open_pairs(spec)


def test_the_command_makes_icons_only_when_asked(small_icons, monkeypatch, capsys):
    made = []
    for name in command._ASSETS:
        monkeypatch.setitem(
            command._ASSETS, name, lambda name=name: made.append(name) or small_icons
        )
    assert command.main([]) == 0 and command.main(["--only", "icons"]) == 0
    assert made[-1] == "icons" and "icons" not in made[:-1] and len(made) == 6


def test_importing_imports_nothing_heavy():
    code = (
        "import sys, ape_jax.demo.icons.pairs, ape_jax.demo.icons.plan, ape_jax.demo.icons.render;"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'torch', 'numpy', 'jax', 'PIL'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
class TestReal:
    """Sixty thousand icons of the real package."""

    @pytest.fixture(scope="class")
    def found(self):
        builder = icons.open_builder()
        return builder, {split: records(builder, split) for split in icons.SPLITS}

    def test_sizes(self, found):
        builder, rows = found
        sizes = {split: len(r) for split, r in rows.items()}
        assert sizes == {s: info.num_examples for s, info in builder.info.splits.items()}
        assert sizes["train"] >= 60_000
        assert 900 < sizes["validation"] < 1200
        assert 1400 < sizes["test"] < 1700
        assert 1800 < sizes["test_sets"] < 2300

    def test_no_reordered_caption_and_no_held_out_set_in_train(self, found):
        _, rows = found

        def words(split):
            return {" ".join(sorted(r["caption"].decode().split())) for r in rows[split]}

        for split in TESTS:
            assert not words(split) & words("train")
        seen = {r["set"] for r in rows["train"]}
        assert len(seen) > 120
        assert not seen & {r["set"] for r in rows["test_sets"]}
        assert {r["set"] for r in rows["test"]} <= seen

    def test_every_record_names_a_licence_and_captions_are_short(self, found):
        _, rows = found
        for row in (row for split in rows.values() for row in split):
            assert row["licence"] and row["author"] and row["title"]
            assert b"NC" not in row["licence"]
            words = row["caption"].decode().split()
            assert 1 <= len(words) <= 6 and max(map(len, words)) > 1

    def test_no_test_drawing_is_nearly_one_of_train(self, found):
        _, rows = found

        def vectors(split):
            thumbnails = b"".join(icons_render.thumbnail(r["image"]) for r in rows[split])
            pixels = np.frombuffer(thumbnails, np.uint8).reshape(len(rows[split]), -1)
            return icons_alike.standardised(pixels)

        train = vectors("train")
        for split in TESTS:
            assert icons_alike.closest(vectors(split), train).max() <= icons_alike.CORRELATION

    def test_manifest_holds_the_hashes_of_all_files(self, found):
        directory = icons.prepare()
        files = json.loads((directory / "manifest.json").read_text())["files"]
        for name, entry in files.items():
            assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == entry["sha256"]
