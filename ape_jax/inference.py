"""Using what was trained: `load` a work directory and embed images and texts with it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from ape_jax import config as config_lib
from ape_jax import head_names
from ape_jax.align import heads, selection
from ape_jax.align.model import Model
from ape_jax.data.images import ImageRef, load_image
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import prompts, zeroshot
from ape_jax.features import ragged
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.given import VectorPrepare
from ape_jax.towers.tower import Tower
from ape_jax.training import build, dataset, workdir
from ape_jax.training import run as run_lib
from ape_jax.training.checkpoint import SOLVED, Checkpoints
from ape_jax.training.embed import Embedder, pooled_batches, text_batches, token_batches


class Aligner:
    """An aligned image-text model.

    Example:
      model = ape_jax.load("runs/demo")
      p = model.classify(["cat.png"], ["cat", "dog"], templates="simple")

    Attributes:
      config: the run's resolved config.
      scale: the trained inverse temperature.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        trainable: PyTree,
        frozen: PyTree,
        embedder: Embedder,
        image_transform: Any,
        prepare_texts: Any,
        scale: float,
    ):
        self.config, self.scale = config, scale
        self._trainable, self._frozen, self._embedder = trainable, frozen, embedder
        self._transform, self._prepare = image_transform, prepare_texts

    def encode_image(self, images: Sequence[Any]) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of images.

        Args:
          images: paths, PIL images, encoded bytes or uint8 arrays [H, W, 3 or 4], any mixture; of a
            model on given vectors, vectors [d].

        Returns:
          f32 [n, e].

        Raises:
          UserError: naming an image that cannot be read.
        """
        images = _sequence(images, "encode_image")
        if isinstance(self._transform, VectorPrepare):
            vectors = [x.content if isinstance(x, ImageRef) else x for x in images]
            batches = pooled_batches(np.concatenate(self._transform(vectors)), self._embedder.rows)
            return self._embedder.images(self._trainable, self._frozen, batches, len(images))
        return self._embedder.images(
            self._trainable, self._frozen, self._image_batches(images), len(images)
        )

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of texts; longer ones than the tower takes are cut.

        Args:
          texts: strings; of a model on given vectors, vectors [d] or token encodings [t, d].

        Returns:
          f32 [n, e].

        Raises:
          UserError: for a text that is not a string.
        """
        texts = _sequence(texts, "encode_text")
        if isinstance(self._prepare, VectorPrepare):
            tokens = ragged.from_rows(self._prepare(texts))
            if "places" in head_names.wants(self.config.text.head.name):
                tokens = tokens.with_frame()
            batches = token_batches(tokens, self._embedder.rows, self._embedder.groups)
            return self._embedder.texts(self._trainable, self._frozen, batches, len(texts))
        if bad := [t for t in texts if not isinstance(t, str)]:
            raise UserError(f"encode_text: expected strings, found {type(bad[0]).__name__}")
        batches = text_batches(self._prepare, texts, self._embedder.rows)
        return self._embedder.texts(self._trainable, self._frozen, batches, len(texts))

    def classify(
        self, images: Sequence[Any], classnames: Sequence[str], templates: str = "none"
    ) -> Float[np.ndarray, "n c"]:
        """Zero-shot probabilities: softmax over scaled similarities to the classes.

        Args:
          images: as in `encode_image`.
          classnames: c names.
          templates: `none`, `simple`, `openai` or a file with one `{}` a line.

        Returns:
          f32 [n, c], rows summing to 1.
        """
        classnames = _sequence(classnames, "classify")
        filled = prompts.resolve_templates(templates)
        classes = zeroshot.class_embeddings(self.encode_text, classnames, filled)
        logits = self.scale * (self.encode_image(images) @ classes.T).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def retrieve(
        self, queries: Sequence[str], images: Sequence[Any], k: int = 5
    ) -> list[list[tuple[int, float]]]:
        """The best images for each text.

        Args:
          queries: texts.
          images: as in `encode_image`.
          k: how many; fewer where there are fewer images.

        Returns:
          For each query, places in `images` and cosines, best first.
        """
        scores = self.encode_text(queries) @ self.encode_image(images).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [[(int(i), float(row[i])) for i in places] for places, row in zip(best, scores)]

    def shares(self) -> list[selection.Share]:
        """How much of each group of parameters was trained."""
        return selection.shares(self._trainable, self._frozen)

    def leave_out_unreadable(self, pairs: Pairs, name: str) -> Pairs:
        """The records whose image can be read; says which it leaves out.

        Args:
          pairs: the records.
          name: what to call them.
        """
        return dataset.leave_out_unreadable(pairs, self._transform, self.config, name)

    def _image_batches(self, images: Sequence[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        rows, background = self._embedder.rows, tuple(self.config.data.background)
        for start in range(0, len(images), rows):
            chosen = images[start : start + rows]
            batch = [self._transform(load_image(x, background=background)) for x in chosen]
            yield {"image": np.stack(batch)}, np.arange(start, start + len(chosen))


def load(directory: str | os.PathLike[str]) -> Aligner:
    """Loads the newest checkpoint of a work directory, or of one exported as `jax`, and its towers.

    Raises:
      UserError: where there is no run or no checkpoint, or a tower is no longer the one that the
        head was trained on.
    """
    run = restore(directory)
    return run.aligner(run.model, run.trainable, run.frozen)


def towers_before_and_after(
    directory: str | os.PathLike[str],
) -> tuple[Aligner, Aligner, PyTree, PyTree]:
    """The two towers of a run without heads, as pretraining left them and as they are now.

    Args:
      directory: of the run.

    Returns:
      Two that encode to the towers' own pooled features, before and after; what is trained, before
      and after.

    Raises:
      UserError: as `load`.
    """
    run = restore(directory)
    image, text = run.model.image, run.model.text
    kept = "mean" if image.pooling == "none" else image.pooling
    pooled = heads.OnPooledText(heads.Identity(), run.text.config, run.config.text.pooling)
    after = dataclasses.replace(
        run.model,
        image=dataclasses.replace(image, head=heads.Identity(), pooling=kept),
        text=dataclasses.replace(text, head=pooled),
        standardize=False,
    )
    before = dataclasses.replace(
        after,
        image=dataclasses.replace(after.image, tune="frozen"),
        text=dataclasses.replace(after.text, tune="frozen"),
    )
    start, frozen = before.init(run.config.seed)
    frozen = mesh_lib.place_frozen(frozen, run.mesh, run.config.mesh.shard_min_size)
    return (
        run.aligner(before, start, frozen),
        run.aligner(after, run.trainable, run.frozen),
        run.model.init(run.config.seed)[0],
        run.trainable,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A run as its newest checkpoint has it, on the devices of `mesh`.

    Attributes:
      trainable: the trained parameters; their moving average, where one was kept.
      frozen: the others, statistics included.
      meta: what the checkpoint says of itself (`Checkpoints.save`).
    """

    path: pathlib.Path
    config: ml_collections.ConfigDict
    model: Model
    image: Tower
    text: Tower
    mesh: Mesh
    trainable: PyTree
    frozen: PyTree
    step: int
    meta: Mapping[str, Any]

    def aligner(self, model: Model, trainable: PyTree, frozen: PyTree) -> Aligner:
        """One that encodes with this model in the place of the run's own."""
        return Aligner(
            self.config,
            trainable,
            frozen,
            Embedder(model, self.mesh, self.config.eval.batch),
            self.image.prepare.transform,
            self.text.prepare,
            float(model.logit_scale(trainable, frozen)[0]),
        )


def restore(
    directory: str | os.PathLike[str], settings: Mapping[str, Any] | None = None
) -> Restored:
    """A run's newest checkpoint, on the towers that it was trained on; raises as `load`.

    Args:
      directory: of the run, or what was exported of it as `jax`.
      settings: config keys to set otherwise, such as `{"image.dtype": "float32"}`; none that the
        trained parameters depend on.
    """
    path = workdir.locate(directory)
    config = workdir.read_config(path)
    if settings:
        config = config_lib.resolve({**config_lib.flatten(config), **settings})
    # Opening would create the folder; a directory that is only read stays as it is.
    if not (path / "checkpoints").is_dir():
        raise UserError(f"{path} holds no checkpoint yet; train first, or wait for the first one")
    checkpoints = Checkpoints(path, config.train.keep)
    if checkpoints.latest is None:
        raise UserError(f"{path} holds no finished checkpoint yet; run the training again")
    image, text = build.load_towers(config, path / build.TOWERS)
    checkpoints.check(run_lib.meta(config, image, text))
    mesh = mesh_lib.make_mesh()
    step, meta = checkpoints.latest, checkpoints.meta
    model = build.make_model(config, image, text, meta.get(SOLVED))
    trainable, frozen = model.init(config.seed)
    frozen = mesh_lib.place_frozen(frozen, mesh, config.mesh.shard_min_size)
    trainable = mesh_lib.place_replicated(trainable, mesh)
    fixed = mesh_lib.place_replicated({k: v for k, v in frozen.items() if k == "statistics"}, mesh)
    averaged = config.optim.ema > 0
    trainable, fixed = checkpoints.restore_model(trainable, fixed, average=averaged)
    checkpoints.close()
    return Restored(
        path=path,
        config=config,
        model=model,
        image=image,
        text=text,
        mesh=mesh,
        trainable=trainable,
        frozen={**frozen, **fixed},
        step=step,
        meta=meta,
    )


def _sequence(items: Sequence[Any], what: str) -> list[Any]:
    """A list; a lone string or nothing is a mistake that would give a wrong answer quietly."""
    if isinstance(items, str | bytes) or not hasattr(items, "__len__"):
        raise UserError(f"{what}: expected a list, found one {type(items).__name__}; write [x]")
    if not len(items):
        raise UserError(f"{what}: expected at least one item, found an empty list")
    return list(items)
