"""Every argument of the public face: a value is taken, or one sentence names what is wrong.

The face is what the reference pages document (`::: ape_jax...`), and what `LISTED` adds. A function
or argument without a row here fails.
"""

import inspect
import pathlib
import re
import types

import numpy as np
import pytest

import ape_jax
from ape_jax import UserError, search, towers
from ape_jax.align import losses
from ape_jax.data.specs import open_pairs
from ape_jax.evaluators import prompts, retrieval, zeroshot
from ape_jax.exporters import verified
from tests.api import wrong

pytestmark = pytest.mark.usefixtures("unchecked")

DOCS = pathlib.Path(__file__).parents[2] / "docs/reference"
LISTED = [
    losses.softmax_reference, losses.sigmoid_reference, retrieval.retrieval_metrics,
    retrieval.chance_metrics, zeroshot.zeroshot_metrics, zeroshot.class_embeddings,
    prompts.resolve_templates, prompts.resolve_classnames, prompts.read_classnames,
    search.open_index, search.maker, search.Index.search, search.Index.image, verified.export,
]  # fmt: skip
# Of the documented classes, methods that take nothing or that only the package itself calls.
HOUSE = {
    "Aligner": {
        "encode_batches",
        "encode_readable",
        "leave_out_unreadable",
        "shares",
        "language_rows",
    }
}


def documented():
    """The functions and methods that the reference pages document."""
    for page in DOCS.glob("*.md"):
        for name in re.findall(r"^::: ape_jax\.([\w.]+)$", page.read_text(), re.MULTILINE):
            value = ape_jax
            for part in name.split("."):
                value = getattr(value, part)
            if inspect.isclass(value):
                yield from (
                    member
                    for key, member in inspect.getmembers(value, inspect.isfunction)
                    if key == "__call__" or not key.startswith("_")
                    if key not in HOUSE.get(value.__name__, ())
                )
            elif callable(value):
                yield value


def face():
    """Function -> its arguments, by its name."""
    functions = {f.__qualname__: f for f in [*documented(), *LISTED]}
    return {
        name: [p for p in inspect.signature(function).parameters if p != "self"]
        for name, function in functions.items()
    }


@pytest.fixture(scope="module")
def world(tiny, tiny_run):
    """What the rows call: models, towers, arrays."""
    z = np.eye(4, dtype=np.float32)
    text, image = (towers.load(tiny / side, dtype="float32") for side in ("text", "image"))
    index = object.__new__(search.Index)  # Without files.
    record = types.SimpleNamespace(sha256={}, folder="x")
    entries = [types.SimpleNamespace(name="a.png", source="x")] * 4
    vars(index).update(path=tiny, record=record, entries=entries, vectors=z)
    return {
        "tiny": tiny, "run": tiny_run, "file": tiny / "red-bar.png", "z": z, "text": text,
        "image": image, "model": ape_jax.load(tiny_run), "batch": text.prepare(["a red bar"]),
        "index": index,
    }  # fmt: skip


def rows(w):
    """{function: {argument: (call, wrong and taken values, words of which a sentence has one)}}."""
    m, file, z = w["model"], w["file"], w["z"]
    one, ids, tiny = str(file), np.arange(4), w["tiny"]
    pictures, picture_words = wrong.images(file), ("image", "such file")
    fit = {"image": str(tiny / "image"), "text": str(tiny / "text"), "pairs": tiny / "pairs.jsonl"}
    none, kind = wrong.NOTHING, ["x", "", b"text", [1], 3]

    def fitted(**keys):
        return ape_jax.fit(**{**fit, "steps": 1, "batch": 8, **keys})

    def encoded(texts):
        return np.ones((len(texts), 4), np.float32)

    spec_words = ("tower", "image", "text")
    pairs_wrong = wrong.pairs(file)[0]
    sets = [v for v in pairs_wrong if v is not None and not (isinstance(v, dict) and not v)]
    sets += [{3: "x.jsonl"}, {"": "x.jsonl"}, {"a": 5}]
    many = ([0, -1, 2.5, True, "3", 10**9, [1]], [None, np.int64(8)])
    evaluators = wrong.matrices(z), wrong.indices()
    found = {
        "fit": {
            "image": (lambda v: fitted(image=v), (wrong.SPECS[0], []), spec_words),
            "text": (lambda v: fitted(text=v), (wrong.SPECS[0], []), spec_words),
            "pairs": (lambda v: fitted(pairs=v), (pairs_wrong, []), ("pairs",)),
            "eval": (lambda v: fitted(eval=v), (sets, []), ("eval", "row 0")),
            "recipe": (lambda v: fitted(recipe=v), wrong.SPECS, ("recipe",)),
            "workdir": (lambda v: fitted(workdir=v), (wrong.PATHS[0][1:], []), ("workdir",)),
            "keys": (lambda v: fitted(**v),
                     ([{"optim_lr": "x"}, {"stepz": 3}, {"seed": 1.5}, {"views": "many"},
                       {"cache_dir": 3}, {"data_on_error": 1}, {"optim.lr": 1}], []),
                     ("optim_lr", "optim.lr", "stepz", "seed", "views", "cache.dir",
                      "data.on_error")),
        },
        "load": {
            "directory": (ape_jax.load, wrong.PATHS, ("load",)),
            "dtype": (lambda v: ape_jax.load(w["run"], v), wrong.DTYPES, ("dtype",)),
            "dim": (lambda v: ape_jax.load(w["run"], dim=v), wrong.DIMS, ()),
        },
        "Encoder.encode_image": {
            "images": (m.encode_image, pictures, picture_words),
            "batch_size": (lambda v: m.encode_image([one], batch_size=v), wrong.SIZES, ()),
            "progress": (lambda v: m.encode_image([one], progress=v), wrong.TRUTHS, ()),
        },
        "Encoder.encode_text": {
            "texts": (m.encode_text, wrong.texts(), ("encode_text",)),
            "language": (lambda v: m.encode_text(["a"], language=v),
                         (["en", ["en"], 3, [3], b"en", []], [None]), ("language",)),
            "batch_size": (lambda v: m.encode_text(["a"], batch_size=v), wrong.SIZES, ()),
            "progress": (lambda v: m.encode_text(["a"], progress=v), wrong.TRUTHS, ()),
        },
        "Aligner.add_language": {  # Of a model without means of languages.
            "name": (lambda v: m.add_language(v, ["a"]), ([None, 3, b"lv", ["lv"], "lv"], []),
                     ("add_language",)),
            "texts": (lambda v: m.add_language("lv", v), (wrong.texts()[0], []),
                      ("add_language",)),
        },
        "Aligner.classify": {
            "images": (lambda v: m.classify(v, ["a"]), wrong.images(file), picture_words),
            "classnames": (lambda v: m.classify([one], v), wrong.names(), ("class names",)),
            "templates": (lambda v: m.classify([one], ["a"], v), wrong.templates(), ("template",)),
        },
        "Aligner.retrieve": {
            "queries": (lambda v: m.retrieve(v, [one]), wrong.texts(), ("text",)),
            "images": (lambda v: m.retrieve(["a"], v), wrong.images(file), picture_words),
            "k": (lambda v: m.retrieve(["a"], [one], v), wrong.COUNTS, ()),
        },
        "Aligner.evaluate": {"pairs": (m.evaluate, wrong.pairs(file), ("evaluate", "row 0"))},
        "Aligner.report": {},
        "Aligner.export": {
            "directory": (m.export, wrong.PATHS, ("export",)),
            "format": (lambda v: m.export(tiny / "new/x", v), wrong.FORMATS, ()),
        },
        "Aligner.save": {"directory": (m.save, wrong.PATHS, ("save",))},
        "load of a tower": {
            "spec": (towers.load, wrong.SPECS, ("tower",)),
            "options": (lambda v: towers.load(tiny / "text", **v),
                        ([{"dtype": x} for x in (3, "x", "", ["float32"], object())]
                         + [{"param_dtype": x} for x in (3, "x", "", object())]
                         + [{"kind": x} for x in kind] + [{"max_length": x} for x in many[0]]
                         + [{"image_size": x} for x in many[0]] + [{"no_such": 1}]
                         + [{"prefix": x} for x in (3, b"x", ["a"], True, wrong.HALF)]
                         + [{"unroll": 3}, {"trust_remote_code": "no"}, {"torch_device": 3}],
                         [{"max_length": np.int64(8)}, {"prefix": "query: "}, {"kind": "text"}]),
                        ("dtype", "kind", "max_length", "image_size", "prefix", "no_such",
                         "unroll", "trust_remote_code", "torch_device")),
        },
        "BoundTower.__call__": {
            "batch": (w["text"], wrong.batches(w["batch"]), ("batch",)),
            "layer": (lambda v: w["text"](w["batch"], layer=v),
                      ([None, 99, -99, 2.5, True, "1", [1]], [-1, 0, np.int64(1)]), ()),
            "pooling": (lambda v: w["text"](w["batch"], pooling=v),
                        ([3, "x", "", b"cls", ["cls"]], [None, "mean"]), ()),
        },
        "BoundTower.encode": {
            "inputs": (w["text"].encode, wrong.texts(), ("text", "inputs")),
            "batch": (lambda v: w["text"].encode(["a"], batch=v),
                      (wrong.COUNTS[0], [1, np.int64(2)]), ()),
        },
        "open_pairs": {
            "spec": (open_pairs, wrong.SPECS, ("data.pairs",)),
            "key": (lambda v: open_pairs(3, key=v), (["--x"], []), ("--x",)),
            "reading": (lambda v: open_pairs(3, reading=v), ([None], []), ("data.pairs",)),
        },
        "open_index": {
            "path": (lambda v: search.open_index(v, None),
                     ([*wrong.PATHS[0], "gone", tiny], []), ("index",)),
            "identity": (lambda v: search.open_index("gone", v), ([None, {}], []), ("index",)),
            "key": (lambda v: search.open_index("gone", None, key=v), (["--x"], []), ("--x",)),
        },
        "maker": {
            "path": (search.maker, ([*wrong.PATHS[0], "gone", tiny], []), ("index",)),
            "key": (lambda v: search.maker("gone", key=v), (["--x"], []), ("--x",)),
        },
        "Index.search": {
            "queries": (
                lambda v: w["index"].search(v, 1),
                ([v for v in evaluators[0][0] if getattr(v, "size", 1)], evaluators[0][1]), ()),
            "k": (lambda v: w["index"].search(z, v), wrong.COUNTS, ()),
            "exact": (lambda v: w["index"].search(z, 1, exact=v), wrong.TRUTHS, ()),
        },
        "Index.image": {
            "index": (w["index"].image, ([None, -1, 4, 2.5, True, "0", [0]], [0, np.int64(3)]), ()),
        },
        "export": {
            "source": (lambda v: verified.export(v, tiny / "new/y", "jax"),
                       ([*wrong.PATHS[0], "gone"], []), ("--workdir",)),
            "out": (lambda v: verified.export(w["run"], v, "jax"), wrong.PATHS, ("--out",)),
            "format": (lambda v: verified.export(w["run"], tiny / "new/y", v), wrong.FORMATS, ()),
            "inputs": (lambda v: verified.export(w["run"], tiny / "new/y", "jax", inputs=v),
                       ([None, 3, b"x", ["a"]], []), ()),
            "facts": (lambda v: verified.export(w["run"], tiny / "new/y", "jax", facts=v),
                      ([None, 3, "x", {}], []), ()),
            "dim": (lambda v: verified.export(w["run"], tiny / "new/y", "jax", dim=v),
                    (wrong.DIMS[0], []), ()),
            "languages": (lambda v: verified.export(w["run"], tiny / "new/y", "jax", languages=v),
                          ([3, "lv", ["lv"], {"lv": 3}, {3: z[0]}], []), ()),
        },
        "retrieval_metrics": {
            "zimg": (lambda v: retrieval.retrieval_metrics(v, z, ids), evaluators[0], ("wide",)),
            "ztxt": (lambda v: retrieval.retrieval_metrics(z, v, ids), evaluators[0], ()),
            "image_index": (lambda v: retrieval.retrieval_metrics(z, z, v), evaluators[1], ()),
        },
        "chance_metrics": {
            "n_images": (lambda v: retrieval.chance_metrics(v, ids),
                         ([None, 0, -1, 2.5, "4", True, 3], [4, np.int64(9)]), ("image_index",)),
            "image_index": (lambda v: retrieval.chance_metrics(4, v),
                            ([None, 3.5, "a", [], [0.0, 1], object(), [None], [9], [-1]],
                             [ids, [0, 0]]), ()),
        },
        "zeroshot_metrics": {
            "zimg": (lambda v: zeroshot.zeroshot_metrics(v, z, ids), evaluators[0], ("wide",)),
            "zclass": (lambda v: zeroshot.zeroshot_metrics(z, v, ids), evaluators[0], ()),
            "labels": (lambda v: zeroshot.zeroshot_metrics(z, z, v), evaluators[1], ()),
        },
        "class_embeddings": {
            "encode_text": (lambda v: zeroshot.class_embeddings(v, ["a"], ["{}"]),
                            ([*none[:5], "f", lambda t: None, lambda t: "x", lambda t: np.ones(3),
                              lambda t: np.ones((9, 4)), lambda t: encoded(t) * np.nan],
                             [encoded]), ()),
            "classnames": (lambda v: zeroshot.class_embeddings(encoded, v, ["{}"]),
                           wrong.names(), ("class names",)),
            "templates": (lambda v: zeroshot.class_embeddings(encoded, ["a"], v),
                          ([None, 3, "", [], [3], ["a"], ["{} {}"], b"{}", ["{}", None]],
                           [["{}"], ("a {}",)]), ("template",)),
            "batch": (lambda v: zeroshot.class_embeddings(encoded, ["a"], ["{}"], batch=v),
                      wrong.COUNTS, ()),
        },
        "resolve_templates": {
            "templates": (prompts.resolve_templates,
                          (wrong.templates()[0], wrong.templates()[1][1:]), ()),
            "key": (lambda v: prompts.resolve_templates(3, key=v), (["--x"], []), ("--x",)),
        },
    }  # fmt: skip
    for name, function in (("resolve_classnames", prompts.resolve_classnames),
                           ("read_classnames", prompts.read_classnames)):  # fmt: skip
        first = "name_or_path" if name.startswith("resolve") else "path"
        bad = [*none, "", "gone.txt", "a\0b", wrong.HALF, ["a"], "x" * 300, tiny]
        found[name] = {
            first: (function, (bad, []), ("classnames",)),
            "key": (lambda v, function=function: function(3, key=v), (["--x"], []), ("--x",)),
        }
    for function in (losses.softmax, losses.softmax_reference, losses.sigmoid,
                     losses.sigmoid_reference):  # fmt: skip
        found[function.__name__] = wrong.of_loss(function, z)
    plans = {"eps": wrong.EPS, "iterations": wrong.ITERATIONS}
    for function, sides, numbers in (
        (losses.structure, ["before", "after"],
         {"temperature": wrong.EPS, "levels": wrong.ITERATIONS}),
        (losses.subwords, ["logits", "targets"], {}),
        (losses.klot, ["student", "teacher"], {**plans, "teacher_eps": wrong.EPS}),
        (losses.transport_plan, ["similarities"], plans),
    ):  # fmt: skip
        found[function.__name__] = wrong.of_term(function, sides, z, numbers)
    return found


def table():
    """All (function, argument) of the face, by the names of the rows."""
    for name, arguments in face().items():
        yield from ((name, argument) for argument in arguments)
    yield from (("load of a tower", argument) for argument in ("spec", "options"))
    yield from (("load", argument) for argument in ("directory", "dtype", "dim"))


CASES = sorted(set(table()) - {("load", "spec"), ("load", "options")})


@pytest.fixture(scope="module")
def made(world):
    return rows(world)


def test_every_row_is_of_a_public_function(made):
    assert {(name, argument) for name in made for argument in made[name]} == set(CASES)
    assert len(CASES) > 80


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_value_is_taken_or_is_one_sentence(world, made, name, argument):
    call, (bad, taken), words = made[name][argument]
    for value in bad:
        with pytest.raises(UserError) as error:
            call(value)
            pytest.fail(f"{name}({argument}={value!r}) was taken")
        said = str(error.value)
        assert "\n" not in said, said
        assert any(word in said for word in (argument, *words)), (value, said)
    for value in taken:
        call(value)
