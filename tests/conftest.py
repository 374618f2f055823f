"""Eight fake CPU devices for every test, and a tiny world: two towers and coloured shapes."""

import fcntl
import gc
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

from tests import compiling, tiny_world
from tests.broken import write_broken

# Before the first import of jax.
os.environ["JAX_PLATFORMS"] = "cpu"
_OTHERS = compiling.others(os.environ.get("XLA_FLAGS", ""))
os.environ["XLA_FLAGS"] = " ".join((*_OTHERS, compiling.DEVICES, *compiling.QUICK))
# For processes that are started without these flags.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Many tests compile the same program; all but the first read it from here, in other processes too:
# workers find the directory of the process that started them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="ape_jax_xla_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Imports and traces make millions of objects that stay; few cycles are there to be found meanwhile.
gc.set_threshold(100_000, 20, 20)


def pytest_collection_finish():
    """Takes all that was imported out of what the garbage collector looks through each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Frees what a module has compiled: all of it together would fill ten gigabytes."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture
def unchecked():
    """Type checks off, for what the functions themselves say of a wrong argument."""
    import jaxtyping

    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", disabled)


@pytest.fixture
def fully_compiled(monkeypatch):
    """Compiles as XLA does for users, here and in the processes that a test starts.

    For tests of memory or speed, and of whether two programs give the same bits.
    """
    from jax._src import compiler

    options = compiler.get_compile_options

    def full(*args, env_options_overrides=None, **kwargs):
        overrides = compiling.USUAL | (env_options_overrides or {})
        return options(*args, env_options_overrides=overrides, **kwargs)

    monkeypatch.setattr(compiler, "get_compile_options", full)
    monkeypatch.setenv("XLA_FLAGS", " ".join((*_OTHERS, compiling.DEVICES)))
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)


def _once(tmp_path_factory, name, make):
    """The folder that `make(folder)` fills, once for all worker processes of a test run."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, made = root / f"shared_{name}", root / f"shared_{name}.made"
    with (root / f"shared_{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with `image` and `text` (tower directories) and `pairs.jsonl` with 24 records.

    The towers are transformers' own with random weights: they prove the machinery, not the result.
    """

    return _once(tmp_path_factory, "tiny", tiny_world.write)


@pytest.fixture
def broken(tiny, tmp_path):
    """The tiny world's pairs with rows between them that cannot be used, one line of each kind."""
    return write_broken(tiny, tmp_path / "broken")


@pytest.fixture(scope="session")
def tiny_run(tiny, tmp_path_factory):
    """A work directory that was trained on the tiny world until it knows it, with its report.

    Tests only read it.
    """
    from ape_jax import config as config_lib
    from ape_jax import pages
    from ape_jax.training import loop

    config = config_lib.default()
    config.image.tower, config.text.tower = str(tiny / "image"), str(tiny / "text")
    config.image.dtype = config.text.dtype = "float32"
    config.data.pairs = str(tiny / "pairs.jsonl")
    config.data.eval = {"shapes": str(tiny / "pairs.jsonl")}
    config.text.head.depth, config.optim.lr = 2, 3e-3
    config.train.batch, config.train.steps, config.train.log_every = 16, 40, 10
    config.eval.batch = 8
    config.cache.dir = str(tmp_path_factory.mktemp("features"))

    def make(root):
        loop.train_and_evaluate(config_lib.resolve(config), root / "shapes")
        pages.write(root / "shapes")

    return _once(tmp_path_factory, "tiny_run", make) / "shapes"


@pytest.fixture(scope="session")
def new_tiny_config(tiny, tmp_path_factory):
    """`new_tiny_config()`: a config that trains on the tiny world in seconds, in f32."""
    return lambda: tiny_world.config(tiny, tmp_path_factory.mktemp("features"))


@pytest.fixture
def tiny_config(new_tiny_config):
    """One of them."""
    return new_tiny_config()


@pytest.fixture(scope="session")
def ray_here():
    """A Ray cluster of two cores on this machine, in whose processes shards hold eight items."""
    ray = pytest.importorskip("ray", reason="ray is not installed (ape_jax[ray])")

    def small_shards():  # Sent by value: this module is not there.
        from ape_jax.features import jobs

        jobs.SHARD_VIEWS = jobs.SHARD_CAPTIONS = 8

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=2**27,
        runtime_env={"worker_process_setup_hook": small_shards},
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def write_tfds(tmp_path, monkeypatch) -> Callable[[str, dict, list[dict]], None]:
    """(name, features, examples) -> a TFDS data set `tfds:name:train`, without TensorFlow."""
    import tensorflow_datasets as tfds

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))

    def write(name: str, features: dict, examples: list[dict]) -> None:
        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            url_infos: ClassVar[dict] = {}  # Nothing is downloaded.

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager):
                return {"train": ((str(i), e) for i, e in enumerate(examples))}

            def _generate_examples(self):
                raise NotImplementedError

        Builder.name = name
        builder = Builder(data_dir=str(tmp_path / "tfds"), file_format="array_record")
        builder.download_and_prepare()

    return write


@pytest.fixture
def rng():
    """A seeded NumPy generator."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """`finished("clip")`: a finished two-tower model of transformers and the directory it is in.

    Names are "clip", "siglip" and pairs of towers, "dinov2+bert"; all parameters are random.
    """
    root, made = tmp_path_factory.mktemp("finished"), {}

    def make(name):
        if name not in made:
            path = root / name
            made[name] = _finished_model(name), path
            made[name][0].save_pretrained(path)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                (path / file).write_bytes((tiny / "text" / file).read_bytes())
            settings = (tiny / "image/preprocessor_config.json").read_bytes()
            (path / "preprocessor_config.json").write_bytes(settings)
        return made[name]

    return make


def _finished_model(name):
    import torch
    import transformers as t

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    mlp = {"intermediate_size": 64}
    image = {**sizes, "image_size": 32, "patch_size": 8}
    text = {**sizes, **mlp, "vocab_size": 18, "max_position_embeddings": 16, "eos_token_id": 3}
    words = {"bos_token_id": 2, "pad_token_id": 0}
    towers = {
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**image, mlp_ratio=2)),
        "clip": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**image, **mlp)),
        "siglip": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**image, **mlp)),
        "vit": lambda: t.ViTModel(t.ViTConfig(**image, **mlp)),
        "bert": lambda: t.BertModel(t.BertConfig(**text)),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(**text, **words)),
        "mpnet": lambda: t.MPNetModel(t.MPNetConfig(**text, **words)),
        "distilbert": lambda: t.DistilBertModel(
            t.DistilBertConfig(dim=32, n_layers=1, n_heads=4, hidden_dim=64, vocab_size=18)
        ),
        "clip_text": lambda: t.CLIPTextModel(t.CLIPTextConfig(**text, **words)),
    }
    whole = {"text_config": {**text, **words}, "vision_config": {**image, **mlp}}
    if name == "clip":
        model = t.CLIPModel(t.CLIPConfig(**whole, projection_dim=24))
    elif name == "siglip":
        model = t.SiglipModel(t.SiglipConfig(**whole))
    else:
        vision, text_model = (towers[part]() for part in name.split("+"))
        model = t.VisionTextDualEncoderModel(vision_model=vision, text_model=text_model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()
