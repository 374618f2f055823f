"""An aligned model as Python users hold it: encode, classify, retrieve, evaluate, keep, export."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float, Float32

from ape_jax import arguments
from ape_jax.api import preview
from ape_jax.api.evaluation import Evaluation
from ape_jax.data import in_memory
from ape_jax.data.options import Reading
from ape_jax.errors import UserError, path_text, whole_number
from ape_jax.evaluators import prompts, tasks, zeroshot
from ape_jax.exporters import verified
from ape_jax.pages import run as report_page
from ape_jax.parallel import programs
from ape_jax.runs import languages, widths
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.directory import summaries
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.restore import restore
from ape_jax.storage import atomic, disk

_DTYPES = ("bfloat16", "float32")


def load(
    directory: str | os.PathLike[str], dtype: str | None = None, dim: SupportsIndex | None = None
) -> Aligner:
    """Loads a model that was trained here, or a finished one.

    Example:
      model = ape_jax.load("runs/demo/few_pairs/seed0")
      small = ape_jax.load("runs/demo/few_pairs/seed0", dim=64)   # a sixth of the numbers

    Args:
      directory: a work directory, or one exported as `jax`; or a finished two-tower model, as a
        directory of transformers, `hf:org/name[@rev]` or a big_vision .npz.
      dtype: what the towers compute in: "bfloat16" is fast, "float32" exact (their cosines differ
        in the fourth digit); None takes the run's own, which is bfloat16 unless its config says
        otherwise. `model.dtype` says which it is.
      dim: embeddings are the first `dim` numbers, at unit length again; None takes the model's own
        width. Training with `loss.dims` makes prefixes good embeddings; of CCA they are already.
        A line on stderr says so where nothing has trained the prefix.

    Raises:
      UserError: where there is no run, checkpoint or model, a file is damaged, or a tower is no
        longer the one that the heads were trained on; for a `dim` above the joint width.
    """
    if dtype is not None and (not isinstance(dtype, str) or dtype not in _DTYPES):
        raise UserError(f"load: dtype: expected None, 'bfloat16' or 'float32', found {dtype!r}")
    directory = path_text(directory, "load")
    programs.keep()
    settings = {} if dtype is None else {"image.dtype": dtype, "text.dtype": dtype}
    return Aligner(restore(directory, {**settings, **widths.settings(dim, "load: dim")}))


class Aligner(Encoder):
    """An aligned image-text model, as `ape_jax.fit` and `ape_jax.load` return it.

    Example:
      model = ape_jax.load("runs/demo/few_pairs/seed0")
      p = model.classify(["cat.png"], ["cat", "dog"], templates="simple")
      hits = model.retrieve(["something sweet"], paths, k=5)

    Args:
      aligned: the model and its parameters.
      temporary: the temporary directory that the run lives in, which goes with the object.

    Attributes:
      directory: the work directory, or where the model was loaded from.
      config, transform, prepare, scale, bias, rows, dtype: as of `Encoder`.
    """

    def __init__(
        self,
        aligned: AlignedModel,
        temporary: tempfile.TemporaryDirectory[str] | None = None,
    ):
        super().__init__(aligned)
        self.directory = aligned.source
        self._temporary = temporary
        self._added: dict[str, Float32[np.ndarray, " d"]] = {}  # Means of further languages.

    def classify(
        self,
        images: Iterable[Any],
        classnames: Sequence[str] | Mapping[Any, str],
        templates: str | Path | Sequence[str] | None = None,
    ) -> Float[np.ndarray, "n c"]:
        """Zero-shot probabilities: softmax over scaled similarities to the classes.

        Args:
          images: as in `encode_image`.
          classnames: c names; of a dictionary the values, which are in its order.
          templates: a name or a file as `--templates` takes it (`none`, `simple`, `openai`, ...),
            one text with `{}`, or a list or tuple of them; None is the bare name.

        Returns:
          f32 [n, c], rows summing to 1.

        Raises:
          UserError: for a name that is not text, or templates that are none; as `encode_image`.
        """
        names = _classnames(classnames)
        filled = prompts.resolve_templates("none" if templates is None else templates)
        classes = zeroshot.class_embeddings(self.encode_text, names, filled)
        logits = self.scale * (self.encode_image(images) @ classes.T).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def retrieve(
        self, queries: Iterable[str], images: Iterable[Any], k: SupportsIndex = 5
    ) -> list[list[tuple[int, float]]]:
        """The best images for each text.

        Args:
          queries: texts.
          images: as in `encode_image`.
          k: how many, at least 1; fewer where there are fewer images.

        Returns:
          For each query, indices into `images` and cosines, best first.

        Raises:
          UserError: for another `k`; as `encode_image` and `encode_text`.
        """
        count = whole_number(k, "retrieve: k")
        scores = self.encode_text(queries) @ self.encode_image(images).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return [[(int(i), float(row[i])) for i in indices] for indices, row in zip(best, scores)]

    def evaluate(self, pairs: Any) -> Evaluation:
        """Retrieval in both directions on pairs.

        Example:
          figures = model.evaluate([("cat.png", "a cat"), ("dog.png", "a dog")])
          figures["i2t_r1"], figures     # the second prints as a table

        Args:
          pairs: as `ape_jax.fit` takes them.

        Raises:
          UserError: as `ape_jax.fit` for pairs; as `encode_image`.
        """
        with tempfile.TemporaryDirectory(prefix="ape_jax-") as folder:
            reading = dataclasses.replace(Reading.of(self.config.data), columns={})
            opened = in_memory.open_any(pairs, Path(folder), key="evaluate", reading=reading)
            if self.config.data.on_error == "skip":
                opened = self.leave_out_unreadable(opened, "evaluate")
            return Evaluation(tasks.evaluate_retrieval(self, opened), opened)

    def add_language(self, name: str, texts: Iterable[str]) -> None:
        """Gives the model the mean of a further language, from texts without images.

        Some hundred texts will do, of the kind that is searched for. The languages that it was
        trained on may be given another mean in the same way.

        Example:
          model.add_language("lv", open("latvian.txt"))
          model.encode_text(["kaķis"], language="lv")

        Args:
          name: of the language, for `encode_text(texts, language=name)`.
          texts: in that language.

        Raises:
          UserError: for a model without means of languages, or no texts.
        """
        name = arguments.text(name, "add_language: name")
        found = arguments.texts(texts, "add_language")
        if self._aligned.model.languages is None:
            raise UserError(
                "add_language: the model has no means of languages; train it with data.language"
            )
        self._added[name] = languages.mean_of(
            self._aligned, found, self.rows, self._outside("text")
        )
        self._use(languages.with_means(self._aligned, {name: self._added[name]}))

    @property
    def summary(self) -> dict[str, Any]:
        """The figures of the run, as in `summary.json`; {} of a finished model."""
        return summaries.read(Path(self.directory))[0] or {}

    def report(self) -> Path:
        """Writes the run's `report.html` and returns its path.

        Raises:
          UserError: the model is not a run that has come to its end.
        """
        return report_page.write(self.directory)

    def export(self, directory: str | os.PathLike[str], format: str = "torch") -> Path:
        """Writes the model for others as a new directory, and verifies what was written.

        A model that was loaded with `dim` is written with it.

        Args:
          directory: the directory to write; it must not exist.
          format: "torch", "dual_encoder", "onnx", "stablehlo" or "jax".

        Returns:
          The directory.

        Raises:
          UserError: for what the format cannot express, a package that it needs, or a directory
            that exists.
        """
        if not isinstance(format, str):
            raise UserError(f"export: format: expected a name such as 'torch', found {format!r}")
        dim = self.config.eval.dim or None
        out, added = path_text(directory, "export"), self._added
        return verified.export(self.directory, out, format, dim=dim, languages=added)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Keeps the run: copies its work directory, which the object uses from then on.

        The copy can be resumed, evaluated and exported from the command line like any other.

        Args:
          directory: the directory to write; it must not exist.

        Returns:
          The directory.

        Raises:
          UserError: the directory exists or cannot be written, or the model is not of a run.
        """
        out = atomic.check_new(path_text(directory, "save"), "save")
        if self._added:
            raise UserError(
                "save: the run does not hold the languages that were added "
                f"({', '.join(self._added)}); use export(DIR, format='jax')"
            )
        if not (Path(self.directory) / "config.json").is_file():
            raise UserError(
                f"save: {self.directory} is a finished model and no run; use export(DIR, "
                "format='jax')"
            )
        with disk.write_errors(f"save: {out}"), atomic.directory(out) as partial:
            shutil.copytree(self.directory, partial, dirs_exist_ok=True)
        self.directory, temporary = str(out), self._temporary
        self._temporary = None
        if temporary is not None:
            temporary.cleanup()
        return out

    def __repr__(self) -> str:
        return preview.text(self.config, self.summary, self.directory)

    def _repr_html_(self) -> str:
        """What a notebook shows: figures beside chance, and a few pictures with their captions."""
        return preview.html_of(self.config, self.summary, self.directory)


def _classnames(classnames: Sequence[str] | Mapping[Any, str]) -> list[str]:
    if isinstance(classnames, Mapping):
        classnames = list(classnames.values())
    names = arguments.texts(classnames, "classify", "class names")
    for name in names:
        if not name.strip():
            raise UserError(f"classify: expected class names, found the empty one {name!r}")
    return names
