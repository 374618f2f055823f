"""Using a saved run from Python, and evaluating it from the command line."""

import json
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import ape_jax
from ape_jax import UserError
from ape_jax import config as config_lib
from ape_jax.data.specs import open_pairs
from ape_jax.evaluators import tasks
from ape_jax.training import loop


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A trained work directory and its summary."""
    config = config_lib.default()
    config.image.tower, config.text.tower = str(tiny / "image"), str(tiny / "text")
    config.image.dtype = config.text.dtype = "float32"
    config.data.pairs, config.data.eval = (
        str(tiny / "pairs.jsonl"),
        {"x": str(tiny / "pairs.jsonl")},
    )
    config.text.head.depth, config.optim.lr = 2, 3e-3
    config.train.batch, config.train.steps = 16, 40
    config.cache.dir = str(tmp_path_factory.mktemp("features"))
    path = tmp_path_factory.mktemp("run")
    return path, loop.train_and_evaluate(config_lib.resolve(config), path)


@pytest.fixture(scope="module")
def model(run):
    return ape_jax.load(run[0])


def test_embeddings_are_f32_of_unit_length(model, tiny):
    z = model.encode_image([tiny / "red-bar.png", Image.open(tiny / "blue-bar.png")])
    t = model.encode_text(["a red bar", "a blue bar", "the picture"])
    assert z.shape == (2, 32) and t.shape == (3, 32)
    assert z.dtype == t.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(t, axis=1), 1, rtol=1e-5)


def test_loaded_model_has_the_figures_of_the_run(run, model, tiny):
    metrics = tasks.evaluate_retrieval(model, open_pairs(str(tiny / "pairs.jsonl")))
    for name, value in metrics.items():
        assert value == pytest.approx(run[1][f"eval/x/{name}"], abs=1e-6)


def test_batching_does_not_change_an_embedding(model, tiny):
    texts = [f"a {c} square" for c in ("red", "green", "blue")] * 30
    np.testing.assert_allclose(
        model.encode_text(texts)[-1], model.encode_text(texts[-1:])[0], rtol=1e-5, atol=1e-6
    )


def test_classify_gives_probabilities(model, tiny):
    p = model.classify([str(tiny / "red-bar.png")] * 2, ["red bar", "blue circle", "red {x}"])
    assert p.shape == (2, 3) and p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)


def test_classify_takes_a_list_of_templates(model, tiny):
    image, names = [str(tiny / "red-bar.png")], ["red bar", "blue circle"]
    np.testing.assert_array_equal(
        model.classify(image, names, templates=["{}"]), model.classify(image, names)
    )


@pytest.mark.parametrize("templates", [None, "none", ("{}",)])
def test_templates_may_be_nothing_a_name_or_a_tuple(model, tiny, templates):
    image, names = [str(tiny / "red-bar.png")], ("red bar", "blue circle")
    np.testing.assert_array_equal(
        model.classify(image, names, templates), model.classify(image, names, ["{}"])
    )


def test_class_names_of_a_dictionary_are_its_values(model, tiny):
    image, names = [tiny / "red-bar.png"], {7: "red bar", "b": "blue circle"}
    np.testing.assert_array_equal(
        model.classify(image, names), model.classify(image, list(names.values()))
    )


def test_a_generator_of_images_is_encoded_as_a_list(model, tiny):
    paths = sorted(tiny.glob("*.png"))
    z = model.encode_image((path for path in paths), batch_size=5, progress=False)
    np.testing.assert_array_equal(z, model.encode_image(paths, batch_size=5))
    np.testing.assert_allclose(z, model.encode_image(paths), atol=1e-5)


def test_retrieve_finds_the_best_first(model, tiny):
    paths = sorted(tiny.glob("*.png"))
    z, t = model.encode_image(paths), model.encode_text(["a red bar"])
    hits = model.retrieve(["a red bar"], paths, k=3)
    expected = np.argsort(-(t @ z.T)[0], kind="stable")[:3]
    assert [i for i, _ in hits[0]] == expected.tolist()
    assert hits[0][0][1] == pytest.approx(float((t @ z.T).max()), abs=1e-5)
    assert model.retrieve(["a red bar"], paths, k=np.int64(3)) == hits


@pytest.mark.parametrize(
    "templates",
    [["a {}"], ("a {}",), "a {}", iter(["a {}"]), np.array(["a {}"])],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.usefixtures("unchecked")
def test_a_template_is_taken_in_any_form(model, tiny, templates):
    image, names = [tiny / "red-bar.png"], {"first": "red bar", "second": "blue bar"}
    expected = model.classify(image, ["a red bar", "a blue bar"])
    np.testing.assert_array_equal(model.classify(image, names, templates), expected)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.encode_text("a cat"), "list"),
        (lambda m: m.encode_text([]), "empty"),
        (lambda m: m.encode_text(["a", 3]), "int"),
        (lambda m: m.encode_image("cat.png"), "list"),
        (lambda m: m.encode_image(["no-such.png"]), "no-such.png"),
        (lambda m: m.encode_image(iter([])), "empty"),
        (lambda m: m.encode_image(["x.png"], batch_size=0), "batch_size"),
        (lambda m: m.classify(["x.png"], ["cat"], templates="no-such"), "templates"),
        (lambda m: m.classify(["x.png"], "cat"), "list of class names"),
        (lambda m: m.classify(["x.png"], []), "at least one item of class names"),
        (lambda m: m.classify(["x.png"], {"cat": ["cat", "kitten"]}), "item 0: expected a text"),
        (lambda m: m.retrieve(["x"], ["x.png"], k=2.5), "k: expected .* found 2.5"),
        (lambda m: m.retrieve(["x"], ["x.png"], k=0), "found 0"),
        (lambda m: m.retrieve(["x"], ["x.png"], k=-1), "found -1"),
        (lambda m: m.retrieve(["x"], ["x.png"], k=True), "found True"),
        (lambda m: m.retrieve(["x"], ["x.png"], k="2"), "found '2'"),
        (lambda m: m.classify(["x.png"], {"cat", "dog"}), "no order"),
        (lambda m: m.classify(["x.png"], ["cat", " "]), "found the empty one ' '"),
        (lambda m: m.classify(["x.png"], ["cat"], templates=3), "a list of texts, found int"),
        (lambda m: m.classify(["x.png"], ["cat"], templates=b"a {}"), "found bytes"),
        (lambda m: m.classify(["x.png"], ["cat"], templates=iter([])), "the list is empty"),
        (lambda m: m.classify(["x.png"], ["cat"], templates="a {} {}"), "2 times"),
        (lambda m: m.evaluate([("x.png",)]), r"evaluate\[0\]"),
        (lambda m: m.export(None), "export: expected a path, found NoneType"),
        (lambda m: m.export("x", format=["torch"]), "format: expected a name"),
        (lambda m: m.save(3), "save: expected a path, found int"),
        (lambda m: ape_jax.load(None), "load: expected a path, found NoneType"),
        (lambda m: ape_jax.load(" "), "load: expected a path"),
        (lambda m: ape_jax.load("a\0b"), "load: expected a path"),
        (lambda m: ape_jax.load("\ud800"), "load: expected a path"),
        (lambda m: ape_jax.load("x" * 300), "300 characters"),
        (lambda m: ape_jax.fit(image="a", text="b", pairs=[], workdir=""), "workdir: expected"),
        (lambda m: ape_jax.fit(image="a", text="b", pairs=[], recipe=3), "recipe: expected a name"),
        (lambda m: m.export("/tmp"), "exists"),
        (lambda m: m.save("/tmp"), "exists"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_use_is_one_sentence(model, call, words):
    with pytest.raises(UserError, match=words) as error:
        call(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a red bar " * 1000, "x" * 10_000, "é\u0301🙂" * 2500])
def test_text_of_ten_thousand_characters_is_cut(model, text):
    t = model.encode_text([text[:10_000], "a red bar"])
    assert t.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(t, axis=1), 1, rtol=1e-5)


def png_header(side):
    """A PNG whose header announces side x side pixels, without any of them."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_images_that_are_none_or_would_fill_the_memory_are_one_sentence(model, tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.png", "w") as archive:
        archive.writestr("x", "y")
    (tmp_path / "bomb.png").write_bytes(png_header(20_000))
    (tmp_path / "large.png").write_bytes(png_header(9_000))  # Pillow itself would only warn.
    for name, words in {"zip": "not an image", "bomb": "pixels", "large": "pixels"}.items():
        path = tmp_path / f"{name}.png"
        for image in (path, path.read_bytes()):
            with pytest.raises(UserError, match=words) as error:
                model.encode_image([image])
            assert "\n" not in str(error.value)


def test_directory_without_a_run_or_checkpoint_is_one_sentence(run, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        ape_jax.load(tmp_path)
    shutil.copy(run[0] / "config.json", tmp_path)
    with pytest.raises(UserError, match="no checkpoint"):
        ape_jax.load(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_tower_that_changed_is_refused(run, tiny, tmp_path):
    copy, towers = tmp_path / "run", tmp_path / "text"
    shutil.copytree(run[0], copy)
    shutil.copytree(tiny / "text", towers)
    flat = json.loads((copy / "config.json").read_text())
    flat["text.tower"] = str(towers)
    (copy / "config.json").write_text(json.dumps(flat))
    weights = bytearray((towers / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (towers / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="another text tower"):
        ape_jax.load(copy)


def test_evaluate_takes_pairs_in_memory_and_prints_as_a_table(model, run, tiny):
    own = model.evaluate(tiny / "pairs.jsonl")
    held = [(pair.image.content, list(pair.captions)) for pair in open_pairs(tiny / "pairs.jsonl")]
    figures = model.evaluate(held)
    assert figures == own
    assert figures["i2t_r1"] == pytest.approx(run[1]["eval/x/i2t_r1"], abs=1e-6)
    table = repr(figures)
    assert "24 images, 48 captions" in table and "chance" in table and "i2t R@10" in table


def test_dtype_is_said_and_chosen(run):
    assert ape_jax.load(run[0]).dtype == "float32"
    assert ape_jax.load(run[0], dtype="bfloat16").dtype == "bfloat16"
    with pytest.raises(UserError, match="dtype: expected None, 'bfloat16' or 'float32'"):
        ape_jax.load(run[0], dtype="float16")


def test_save_keeps_a_run_that_the_commands_take(run, tmp_path):
    model = ape_jax.load(run[0])
    assert model.save(tmp_path / "kept") == tmp_path / "kept"
    assert model.directory == str(tmp_path / "kept") and model.summary == run[1]
    again = ape_jax.load(tmp_path / "kept")
    texts = ["a red bar"]
    np.testing.assert_array_equal(again.encode_text(texts), model.encode_text(texts))


def test_a_notebook_shows_figures_and_pictures_escaped(model):
    page = model._repr_html_()
    assert "x (24 images)" in page and "chance" in page
    assert page.count("data:image/png;base64") == 6 and "<script" not in page
    assert "i2t R@10" in repr(model)
