"""Flips bits in files that we wrote, uses each, and counts what was used without a word.

    python tests/benchmarks/bitflips.py [--flips 200] [--seed 0] [--only checkpoint,index]

makes a tiny run with its cache, index and exports, and copies of a demo tower, in a temporary
folder. A flip takes a kind of files in turn, a file of it and a bit of that file, by chance; half
of the files are chosen by their size. Then what the file belongs to is used as a user would, and
its values are compared with those of the whole. One JSON line is printed; progress goes to stderr.

noticed   an error, or a line that was not there with the whole files
harmless  the same values, and nothing said
silent    other values, and nothing said: exit code 1
tracebacks  errors of our own readers that are no sentence: exit code 1
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests import (  # noqa: E402
    conftest,  # noqa: F401  (sets the devices before jax is imported)
    tiny_world,
)

Values = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """Files of one kind, and how they are used.

    Attributes:
      name: of the kind.
      folder: that holds them, whole.
      patterns: of the files that are damaged, below the folder.
      use: what is made of a folder like that; raises where damage is noticed.
      ours: whether an error must be a sentence of ours; other libraries raise what they like.
    """

    name: str
    folder: pathlib.Path
    patterns: tuple[str, ...]
    use: Callable[[pathlib.Path], Values]
    ours: bool = True

    def files(self) -> list[pathlib.Path]:
        """The files, by their paths in the folder."""
        found = {path for p in self.patterns for path in self.folder.glob(p) if path.is_file()}
        return sorted(path.relative_to(self.folder) for path in found if path.stat().st_size)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one flip."""

    kind: str
    file: str
    bit: int
    found: str
    said: str


def campaign(scratch: pathlib.Path, kinds: list[Kind], flips: int, seed: int) -> list[Outcome]:
    """Flips so many bits, of each kind in turn."""
    rng, outcomes = np.random.default_rng(seed), []
    whole = {kind.name: used(kind, scratch, None, 0) for kind in kinds}
    for name, (values, error, _) in whole.items():
        if error is not None:
            raise RuntimeError(f"{name} cannot be used whole") from error
        assert values is not None
    for number in range(flips):
        kind = kinds[number % len(kinds)]
        files = kind.files()
        sizes = np.array([(kind.folder / file).stat().st_size for file in files], float)
        weights = sizes / sizes.sum() if rng.random() < 0.5 else None
        file = files[int(rng.choice(len(files), p=weights))]
        bit = int(rng.integers(8 * (kind.folder / file).stat().st_size))
        outcomes.append(outcome(kind, scratch, file, bit, whole[kind.name]))
        print(f"{number + 1}/{flips}", *dataclasses.astuple(outcomes[-1]), file=sys.stderr)
    return outcomes


def outcome(
    kind: Kind, scratch: pathlib.Path, file: pathlib.Path, bit: int, whole: tuple
) -> Outcome:
    """What comes of using a kind with one bit flipped."""
    values, error, lines = used(kind, scratch, file, bit)
    new = lines - whole[2]
    if error is not None:
        from ape_jax.errors import UserError

        sentence = isinstance(error, UserError) and "\n" not in str(error)
        found = "noticed" if sentence or not kind.ours else "traceback"
        said = f"{type(error).__name__}: {error}"
    elif new:
        found, said = "noticed", min(new)
    else:
        found, said = "harmless" if same(values, whole[0]) else "silent", ""
    return Outcome(kind.name, str(file), bit, found, " ".join(said.split())[:160])


def used(
    kind: Kind, scratch: pathlib.Path, file: pathlib.Path | None, bit: int
) -> tuple[Values, Exception | None, set[str]]:
    """Values, error and lines on stderr of a copy, which always lies in the same place."""
    copy = scratch / "copy" / kind.folder.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(kind.folder, copy)
    if file is not None:
        content = bytearray((copy / file).read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        (copy / file).write_bytes(content)
    said, values, error = io.StringIO(), None, None
    with contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            values = kind.use(copy)
        except Exception as raised:
            error = raised
    return values, error, {line for line in said.getvalue().splitlines() if line.strip()}


def same(a: Values, b: Values) -> bool:
    """Whether all values are the same bits."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "shape"):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)


class World:
    """A tiny run, and what is made of it."""

    def __init__(self, scratch: pathlib.Path):
        self.scratch = scratch
        self.tiny, self.cache = scratch / "tiny", scratch / "cache"
        os.environ["APE_JAX_CACHE"] = str(self.cache)
        self.tiny.mkdir()
        tiny_world.write(self.tiny)
        self.run = scratch / "run"
        self.config = self._config()
        from ape_jax.training import loop

        loop.train_and_evaluate(self.config, self.run)

    def _config(self) -> Any:
        from ape_jax import config as config_lib

        config = config_lib.default()
        config.image.tower, config.text.tower = str(self.tiny / "image"), str(self.tiny / "text")
        config.image.dtype = config.text.dtype = "float32"
        config.data.pairs = str(self.tiny / "pairs.jsonl")
        config.data.eval = {"train": str(self.tiny / "pairs.jsonl")}
        config.text.head.depth, config.text.head.width = 3, 64
        config.train.batch, config.train.steps, config.train.checkpoint_every = 16, 8, 4
        config.train.eval_every, config.eval.keep, config.eval.batch = 4, "best", 8
        config.cache.dir = str(self.scratch / "features")
        return config_lib.resolve(config)

    def kinds(self, names: Sequence[str] = ()) -> list[Kind]:
        """The kinds of these names, or all; what they need is made now."""
        made: dict[str, Callable[[], Kind]] = {
            "checkpoint": self.checkpoint,
            "best": self.best,
            "resumed": self.resumed,
            "features": self.features,
            "pairs": self.pairs,
            "vectors": self.vectors,
            "index": self.index,
            "demo tower": self.demo_tower,
            **{name: functools.partial(self.export, name) for name in _EXPORTS},
        }
        return [made[name]() for name in names or made]

    def checkpoint(self) -> Kind:
        """The newest state of a run, as `ape_jax.load` takes it with `eval.keep='last'`."""
        use = lambda folder: model_values(folder, {"eval.keep": "last"})  # noqa: E731
        patterns = ("checkpoints/**/*", "config.json")
        return Kind(name="checkpoint", folder=self.run, patterns=patterns, use=use)

    def best(self) -> Kind:
        """The best state."""
        patterns = ("best/**/*", "config.json")
        return Kind(name="best", folder=self.run, patterns=patterns, use=model_values)

    def resumed(self) -> Kind:
        """The state that a training goes on from."""
        import jax

        from ape_jax.features.dataset import FeatureStore
        from ape_jax.runs import build
        from ape_jax.runs.checkpoints.checkpoint import Checkpoints
        from ape_jax.training import run as run_lib
        from ape_jax.training import step as step_lib
        from ape_jax.training.input import opened
        from ape_jax.training.step import init_state

        sources = opened.sources(self.config)
        run = run_lib.prepare(
            self.config, sources, build.load_towers(self.config), FeatureStore(), resumes=True
        )
        aligned = run.aligned
        _, optimizer = step_lib.from_config(
            self.config, aligned.model, aligned.trainable, aligned.mesh
        )
        like = init_state(aligned.trainable, optimizer)

        def use(folder: pathlib.Path) -> Values:
            checkpoints = Checkpoints(folder, clean=True)
            checkpoints.check({k: v for k, v in aligned.meta.items() if "tower" in k})
            state, fixed = checkpoints.restore(like, aligned.statistics)
            return [int(state.step), *jax.tree.leaves((state, fixed))]

        patterns = ("checkpoints/**/*",)
        return Kind(name="resumed", folder=self.run, patterns=patterns, use=use)

    def features(self) -> Kind:
        """The feature cache of the run."""
        from ape_jax.features.dataset import FeatureStore
        from ape_jax.runs import build
        from ape_jax.training import run as run_lib
        from ape_jax.training.input import opened

        sources = opened.sources(self.config)
        towers = build.load_towers(self.config)

        def use(folder: pathlib.Path) -> Values:
            config = self.config.replace({"cache.dir": str(folder)})
            data = run_lib.prepare(config, sources, towers, FeatureStore()).dataset.in_memory()
            assert data.tokens is not None
            return [data.pooled, data.tokens.flat, data.tokens.offsets]

        folder = self.scratch / "features"
        return Kind(name="features", folder=folder, patterns=("*/*.json", "*/*.rows"), use=use)

    def pairs(self) -> Kind:
        """The table of pairs and its list of captions."""
        from ape_jax.data.specs import open_pairs
        from ape_jax.data.table import sheet

        def use(folder: pathlib.Path) -> Values:
            os.environ["APE_JAX_CACHE"], before = str(folder), os.environ["APE_JAX_CACHE"]
            kept, sheet._IN_MEMORY = sheet._IN_MEMORY, 0
            try:
                pairs = open_pairs(str(self.tiny / "pairs.jsonl"))
                rows = [(pair.id, pair.captions, str(pair.image.source)) for pair in pairs]
                table = pairs.caption_table()
                found = [list(table.texts), table.text_index, table.offsets]
                return [rows, *found, pairs.digest]
            finally:
                os.environ["APE_JAX_CACHE"], sheet._IN_MEMORY = before, kept

        folder = self.scratch / "tables"
        folder.mkdir()
        use(folder)
        return Kind(name="pairs", folder=folder, patterns=("pairs/*/*",), use=use)

    def vectors(self) -> Kind:
        """Vectors out of a Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from ape_jax.data.precomputed import parquet
        from ape_jax.data.specs import open_pairs

        rng, file = np.random.default_rng(0), self.scratch / "x.parquet"
        columns = {"image": rng.normal(size=(40, 8)).tolist(), "caption": ["a cat"] * 40}
        pq.write_table(pa.table(columns), file)

        def use(folder: pathlib.Path) -> Values:
            os.environ["APE_JAX_CACHE"], before = str(folder), os.environ["APE_JAX_CACHE"]
            kept, parquet._SMALL = parquet._SMALL, 0
            try:
                pairs = open_pairs(f"features:{file}")
                return [pairs.image[:], [(pair.id, pair.captions) for pair in pairs]]
            finally:
                os.environ["APE_JAX_CACHE"], parquet._SMALL = before, kept

        folder = self.scratch / "vectors"
        folder.mkdir()
        use(folder)
        return Kind(name="vectors", folder=folder, patterns=("vectors/*/*",), use=use)

    def index(self) -> Kind:
        """An index of the images."""
        from ape_jax import search
        from ape_jax.runs.encoder import Encoder
        from ape_jax.runs.restore import restore
        from ape_jax.search import items

        run = restore(self.run)
        source = items.open_images(str(self.tiny / "pairs.jsonl"), key="--images")
        which = {"run": str(self.run), "identity": search.identity(run)}
        search.add(self.scratch / "index", source, Encoder(run), **which)

        def use(folder: pathlib.Path) -> Values:
            index = search.open_index(folder, None)
            rows = [dataclasses.astuple(entry) for entry in index.entries]
            return [rows, dataclasses.asdict(index.record), np.array(index.vectors)]

        folder = self.scratch / "index"
        return Kind(name="index", folder=folder, patterns=("*.json", "state-*/*"), use=use)

    def demo_tower(self) -> Kind:
        """A copy of a demo tower, of fewer weights than the true one."""
        from safetensors.numpy import save_file

        from ape_jax.demo.packages import manifest
        from ape_jax.demo.towers import assets
        from ape_jax.towers import loading

        whole = self.scratch / "demo/towers/minilm"
        shutil.copytree(self.tiny / "text", whole)
        save_file({"zeros": np.zeros(2**19, np.float32)}, whole / "more.bin")
        digest = loading.read(str(whole), kind="text")[0].digest
        recipe = dataclasses.replace(assets.TOWERS["minilm"], loaded=digest)
        assets.TOWERS["minilm"] = recipe
        manifest.write(whole, assets._version("minilm"))

        def build(name: str, work: pathlib.Path) -> None:
            shutil.copytree(whole, work, dirs_exist_ok=True)

        assets._build = build

        def use(folder: pathlib.Path) -> Values:
            os.environ["APE_JAX_CACHE"], before = str(folder), os.environ["APE_JAX_CACHE"]
            try:
                tower, params = loading.read("demo:minilm", kind="text")
                return [params, str(tower.config), tower.prepare(["a red bar"])]
            finally:
                os.environ["APE_JAX_CACHE"] = before

        folder = self.scratch / "demo"
        return Kind(name="demo tower", folder=folder, patterns=("towers/*/*",), use=use)

    def export(self, name: str) -> Kind:
        """An export, as its own loader reads it."""
        from ape_jax.exporters.verified import export

        source = self.run if name != "dual_encoder" else self.finished()
        folder = self.scratch / f"export-{name}"
        export(source, folder, name, inputs=str(self.tiny / "pairs.jsonl"))
        use, ours = _EXPORTS[name]
        return Kind(name=name, folder=folder, patterns=("**/*",), use=use, ours=ours)

    def finished(self) -> pathlib.Path:
        """A finished model of transformers, which is exported as one."""
        import transformers

        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 64}
        config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
            transformers.CLIPVisionConfig(**sizes, image_size=32, patch_size=8),
            transformers.BertConfig(**sizes, vocab_size=18, max_position_embeddings=16),
            projection_dim=24,
        )
        out = self.scratch / "finished"
        transformers.VisionTextDualEncoderModel(config).save_pretrained(out)
        for side, name in (
            ("image", "preprocessor_config.json"),
            ("text", "tokenizer.json"),
            ("text", "tokenizer_config.json"),
        ):
            shutil.copyfile(self.tiny / side / name, out / name)
        return out


def model_values(folder: pathlib.Path, settings: dict[str, Any] | None = None) -> Values:
    """All that embeddings of a loaded model depend on."""
    import jax

    from ape_jax import config as config_lib
    from ape_jax.runs.restore import restore

    run = restore(folder, settings)
    image, text = run.model.image, run.model.text
    config = {k: v for k, v in config_lib.flatten(run.config).items() if k.split(".")[0] in _MODEL}
    tokens = text.tower.prepare(["a red bar", "the picture of a bar"])
    return [
        *map(np.asarray, jax.tree.leaves((run.trainable, run.frozen))),
        *(str(side.tower.config) for side in (image, text)),
        *(str(side.tower.module) for side in (image, text)),
        *(config, str(image.tower.prepare), list(tokens), run.step),
    ]


_MODEL = ("image", "text", "peft", "embed", "method")


def torch_values(folder: pathlib.Path) -> Values:
    """Embeddings by transformers with the code of the export."""
    import torch
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    with torch.inference_mode():
        out = model(**processor(**inputs("pt")))
    return [out.image_embeds.numpy(), out.text_embeds.numpy(), out.logits_per_image.numpy()]


def onnx_values(folder: pathlib.Path) -> Values:
    """Embeddings by ONNX Runtime."""
    import onnxruntime
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    batch, found = processor(**inputs("np")), []
    for name in ("image", "text"):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        names = [entry.name for entry in session.get_inputs()]
        found += session.run(None, {name: batch[name] for name in names})
    return [*found, json.loads((folder / "config.json").read_text())]


def stablehlo_values(folder: pathlib.Path) -> Values:
    """Embeddings by jax alone."""
    import jax
    from jax import export
    from safetensors.numpy import load_file
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    batch, found = processor(**inputs("np")), []
    for name, keys in {"image": ["pixel_values"], "text": ["input_ids", "attention_mask"]}.items():
        program = export.deserialize((folder / f"{name}.stablehlo").read_bytes())
        weights = load_file(folder / f"{name}.safetensors")
        types = [np.float32 if key == "pixel_values" else np.int32 for key in keys]
        given = [batch[key].astype(dtype) for key, dtype in zip(keys, types)]
        found.append(np.asarray(jax.jit(program.call)(weights, *given)))
    return [*found, json.loads((folder / "config.json").read_text())]


_EXPORTS: dict[str, tuple[Callable[[pathlib.Path], Values], bool]] = {
    "jax": (model_values, True),
    "dual_encoder": (model_values, True),
    "torch": (torch_values, False),
    "stablehlo": (stablehlo_values, False),
    "onnx": (onnx_values, False),
}


def inputs(tensors: str) -> dict[str, Any]:
    """Two images and two texts."""
    images = [tiny_world.draw("red", "bar"), tiny_world.draw("blue", "circle")]
    texts = ["a red bar", "the picture of a circle"]
    return {"images": images, "text": texts, "return_tensors": tensors, "padding": True}


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """What is printed."""
    counts = {
        name: sum(o.found == found for o in outcomes)
        for name, found in (
            ("noticed", "noticed"),
            ("harmless", "harmless"),
            ("silent", "silent"),
            ("tracebacks", "traceback"),
        )
    }
    wrong = [dataclasses.asdict(o) for o in outcomes if o.found in ("silent", "traceback")]
    return {"flips": len(outcomes), **counts, "wrong": wrong}


def main() -> None:
    """Makes the world, flips and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ape_jax_bitflips_") as scratch:
        world = World(pathlib.Path(scratch))
        kinds = world.kinds(list(filter(None, args.only.split(","))))
        outcomes = campaign(pathlib.Path(scratch), kinds, args.flips, args.seed)
    found = summary(outcomes)
    print(json.dumps(found))
    sys.exit(bool(found["silent"] or found["tracebacks"]))


if __name__ == "__main__":
    main()
