"""Values that no argument of a kind can have, and values that any program may hold for it."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
from PIL import Image

from ape_jax.align.losses.hard import Hard

HALF = "half \ud800"
NOTHING = [None, 3, 2.5, True, object(), lambda: 0]


def images(file):
    """(wrong, taken) values of an argument that takes images; `file` is one."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    wrong = [
        *NOTHING, str(file), file, file.read_bytes(), Image.open(file), pixels, [], (), iter([]),
        [None], [3], [[str(file)]], [b""], [b"junk"], ["gone.png"], ["a\0b"], [HALF], [""],
        [file.parent], [str(file).encode()], [np.zeros((8, 8, 3))], [np.zeros((8, 8), np.uint8)],
        {"a": str(file)}, {str(file)}, [{"path": 3}], np.zeros((2, 8, 8, 3)), np.array([]),
        pd.DataFrame({"a": [1]}),
    ]  # fmt: skip
    taken = [
        [str(file)], (file,), [file.read_bytes()], [Image.open(file)], [pixels], iter([str(file)]),
        np.stack([pixels, pixels]), np.array([str(file)]), pd.Series([str(file)]),
        [str(file), pixels, file.read_bytes(), Image.open(file)], [bytearray(file.read_bytes())],
        (str(file) for _ in range(2)), {str(file): 1}.keys(),
    ]  # fmt: skip
    return wrong, taken


def texts():
    """(wrong, taken) values of texts; generators are new ones each time."""
    return (
        [*NOTHING, "one", b"one", [], (), iter([]), [None], [3], [b"one"], [["one"]], [HALF],
         ["a", None], {"a": "one"}, {"one"}, np.array([]), np.array([1.0]), [pathlib.Path("one")],
         pd.DataFrame({"a": ["one"]})],
        [["one"], ("one", "two"), iter(["one"]), (x for x in ["one"]), np.array(["one"]),
         pd.Series(["one"]), [""], ["a\0b"], ["é🙂"], {"one": 1}.keys(), [np.str_("one")]],
    )  # fmt: skip


def names():
    """(wrong, taken) values of class names; generators are new ones each time."""
    return (
        [*NOTHING, "cat", b"cat", [], {}, {"cat", "dog"}, ["cat", 3], ["cat", ""], ["cat", " "],
         [["cat"]], [None], [HALF], {"cat": ["a", "b"]}, {1: None}, np.array([1, 2]), [b"cat"],
         iter([]), pd.DataFrame({"a": ["cat"]})],
        [["cat"], ("cat", "dog"), {"a": "cat", 3: "dog"}, np.array(["cat", "dog"]), iter(["cat"]),
         pd.Series(["cat", "dog"]), ["cat", "cat"], {"cat": 1}.keys(), ["a {x}"]],
    )  # fmt: skip


def templates():
    """(wrong, taken) values of templates; generators are new ones each time."""
    return (
        [3, 2.5, True, object(), b"a {}", "", "no such", [], (), iter([]), [3], [None], ["a"],
         ["{} {}"], [["a {}"]], ["a {}", None], [HALF + "{}"], pathlib.Path("gone.txt"),
         np.array([]), np.array([1]), "a\0b", HALF, {"a": 3}, [b"a {}"]],
        [None, "none", "simple", "a {}", ["a {}"], ("a {}", "{}"), iter(["a {}"]),
         np.array(["a {}"]), (x for x in ["a {}"]), {"a {}"}],
    )  # fmt: skip


COUNTS = (
    [None, 0, -1, 2.5, 2.0, True, "2", [1], np.float32(2), np.nan, object(), b"2", np.array([1])],
    [1, 7, np.int64(2), 10**30, np.array(2)],
)  # fmt: skip
SIZES = ([*COUNTS[0][1:], 10**9], [None, 1, 3, np.int32(2)])
TRUTHS = ([None, 3, "no", [], 0.0, object()], [True, False, np.bool_(True)])
PATHS = (
    [*NOTHING, "", " ", "a\0b", HALF, "x" * 300, ["x"], {"x": 1}, np.array(["x"]), b"\0"],
    [],
)  # fmt: skip
SPECS = ([*NOTHING, "", " ", "no such", "hf:", "a\0b", HALF, ["x"], b"x", "x" * 5000, {}], [])
DTYPES = ([3, "", "float16", np.float32, b"float32", ["float32"], True], [None, "float32"])
# Widths of an embedding; tests' models have fewer than 10**9 numbers.
DIMS = ([0, -1, 2.5, True, "4", [4], 10**9, np.float32(2), object()], [None, 4, np.int64(4)])
FORMATS = ([*NOTHING, "", "torhc", b"torch", ["torch"], HALF, "torch\0"], [])


def pairs(file):
    """(wrong, taken) values of pairs; `file` is an image."""
    one = str(file)
    wrong = [
        *NOTHING, b"x", "", " ", "gone.jsonl", "a\0b", HALF, [], (), {}, iter([]), [3], [None],
        ["a"], [()], [(one,)], [(one, "a", "b")], [(one, "")], [(one, None)], [(one, 3)],
        [(one, [])], [(one, ["a", None])], [(one, HALF)], [(None, "a")], [(3, "a")],
        [("gone.png", "a")], [(b"junk", "a")], [(np.zeros((3, 3)), "a")], [("a\0b", "a")],
        [{"image": one}], [{"image": one, "caption": "a"}, {"image": one}], [{}],
        {"a": [1]}, {"image": [one], "caption": []}, {"image": None, "caption": None},
        {"image": 3, "caption": 4}, {"image": one, "caption": "a"}, pd.DataFrame(),
        pd.DataFrame({"image": [one], "caption": [None]}), pd.Series([one]), np.array([1, 2]),
        np.array([]), {one: "a"}, {3: 4}, {one, "b"}, file, [(one, {"a": 1})],
        [(one.encode(), "a")],
    ]  # fmt: skip
    taken = [
        [(one, "a")], [(file, ["a", "b"])], ((one, "a"),), iter([(one, "a")]), [[one, "a"]],
        [(one, ("a", "b"))], [(one, np.array(["a"]))], {"image": [one], "caption": ["a"]},
        [{"image": one, "caption": "a"}], pd.DataFrame({"image": [one], "caption": ["a"]}),
        {"image": np.array([one]), "caption": pd.Series(["a"])}, [(one, "a\0b")],
        [(one, b"a")], zip([one], ["a"]), np.array([[one, "a"]]),
        {"image": (one,), "caption": iter(["a"])}, [(file.read_bytes(), "a")],
    ]  # fmt: skip
    return wrong, taken


def matrices(z):
    """(wrong, taken) values of embeddings [4, 4]."""
    wrong = [
        *NOTHING, "z", [], np.ones(4), np.ones((4, 4, 1)), np.ones((4, 3), np.float32),
        np.array([["a"] * 4] * 4), np.zeros((0, 4), np.float32), z * np.nan, z.astype(complex),
        z.astype(object), [[1], [1, 2]],
    ]  # fmt: skip
    return wrong, [z, z.tolist(), z.astype(np.float64)]


def indices():
    """(wrong, taken) values of four indices below 4."""
    wrong = [
        None, 3, "a", [], [0.0, 1, 2, 3], np.ones(3, int), [0, 1, 2, 4], [0, 1, 2, -1], object(),
        [None] * 4, ["a"] * 4, [[0], [1, 2]], np.ones((4, 1), int),
    ]  # fmt: skip
    return wrong, [np.arange(4), [0, 1, 2, 3], (0, 0, 0, 0)]


def batches(good):
    """(wrong, taken) values of a batch of texts."""
    ids, mask = good["ids"], good["mask"]
    wrong = [
        *NOTHING, "a", [], {}, {"ids": ids}, {"ids": 3, "mask": 4},
        {"ids": ids, "mask": mask[:, 1:]}, {"ids": ids.astype(float), "mask": mask},
        {"ids": ids + 10**6, "mask": mask}, {"ids": ids - 10**6, "mask": mask},
        {"ids": ids, "mask": None}, {"ids": None, "mask": mask},
        {"ids": ids[0], "mask": mask[0]}, {3: ids},
    ]  # fmt: skip
    return wrong, [good, {"ids": ids.tolist(), "mask": mask.tolist()}]


def of_loss(function, z):
    """Rows of a loss, as `test_arguments.rows` has them."""
    bias = (0.0,) if "sigmoid" in function.__name__ else ()
    ids = np.arange(4)

    def call(name, *before, **keys):
        del before
        arguments = {"zimg": z, "ztxt": z, "scale": 10.0, **({"bias": 0.0} if bias else {}), **keys}
        return lambda value: function(**{**arguments, name: value})

    arrays = (
        [*NOTHING, "z", [], [[1, 2]], np.ones(4), np.ones((4, 4, 1)), np.ones((3, 4)),
         np.ones((4, 3)), np.array([["a"] * 4] * 4), np.zeros((0, 4)), np.ones((4, 4), complex),
         z.astype(object)],
        [z, z.astype(np.float64), z.tolist()],
    )  # fmt: skip
    scalars = ([None, "a", [1, 2], np.ones(3), object(), 1j, True], [1, 2.5, np.float32(3)])
    wrong_ids = [
        3, "a", [1], [1.5] * 4, np.ones(4), np.ones((4, 0), int), np.ones(5, int), object(),
        np.ones((4, 2, 2), int), np.array(["a"] * 4),
    ]  # fmt: skip
    rows = {
        "zimg": (call("zimg"), arrays, ()),
        "ztxt": (call("ztxt"), arrays, ()),
        "scale": (call("scale"), scalars, ()),
        "ids": (call("ids"), (wrong_ids, [None, ids, np.ones((4, 2), int), [0, 0, 1, 1]]), ()),
        "text_ids": (
            call("text_ids", ids=ids), ([*wrong_ids, np.ones((4, 2), int)], [None, ids]), ()),
        "groups": (
            call("groups"), ([None, 0, -1, 2.5, 3, "1", True, [1]], [1, 2, np.int64(2)]), ()),
    }  # fmt: skip
    if bias:
        rows["bias"] = (call("bias"), scalars, ())
        rows["normalize"] = (call("normalize"), ([3, None, "x", ""], ["batch", "square"]), ())
    else:
        values = ([None, "a", -0.1, 1.0, 2, [1], np.nan, True], [0, 0.1])
        rows["smoothing"] = (call("smoothing"), values, ())
        if "reference" not in function.__name__:
            rows["hard"] = (call("hard"), of_hard(z), ("hard",))
    if "reference" not in function.__name__:
        rows["mesh"] = (call("mesh"), ([3, "x", [1], object()], [None]), ())
        rows["impl"] = (call("impl"), ([None, 3, "x", ""], ["auto", "dense"]), ())
    return rows


def of_hard(z):
    """(wrong, taken) values of the negative captions of four images, of a loss over `z`."""
    width = z.shape[1]
    good = Hard(
        np.ones((4, 2, width), np.float32), np.arange(8).reshape(4, 2), np.ones((4, 1), int)
    )
    wrong = [
        *NOTHING[1:], "x", [], {}, tuple(good), good._replace(z=None), good._replace(z="x"),
        good._replace(z=np.ones((4, 2, width + 1))), good._replace(z=np.ones((4, width))),
        good._replace(z=np.ones((3, 2, width))), good._replace(ids=np.ones((4, 2))),
        good._replace(ids=np.ones((4, 3), int)), good._replace(captions=[1, 1, 1, 1]),
        good._replace(captions=[[1], [1, 2]]), good._replace(captions=None),
    ]  # fmt: skip
    return wrong, [None, good, good._replace(ids=good.ids.tolist())]


def of_term(function, sides, z, numbers):
    """Rows of a term without pairs over arrays `sides`; `numbers` are (wrong, taken) by name."""

    def call(name):
        return lambda value: function(**{**dict.fromkeys(sides, z), **numbers_taken, name: value})

    numbers_taken = {name: taken[0] for name, (_, taken) in numbers.items()}
    arrays = (
        [*NOTHING, "z", [], [[1, 2], [1]], np.ones(4), np.ones((4, 4, 1)), np.zeros((0, 4)),
         np.array([["a"] * 4] * 4), np.ones((4, 4), complex), z.astype(object)],
        [z, z.astype(np.float64), z.tolist()],
    )  # fmt: skip
    if len(sides) > 1:
        arrays[0].append(np.ones((3, 4)))
    rows = {side: (call(side), arrays, ()) for side in sides}
    rows |= {name: (call(name), values, ()) for name, values in numbers.items()}
    rows["mesh"] = (call("mesh"), ([3, "x", [1], object()], [None]), ())
    return rows


EPS = ([None, "a", 0, -1.0, np.nan, np.inf, True, [1], object(), 1j], [0.5, 1, np.float32(0.1)])
ITERATIONS = (COUNTS[0], [2, np.int64(3)])
