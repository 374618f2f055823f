"""A TFDS data set, written on the fly as array_record, without TensorFlow."""

from collections.abc import Callable
from typing import ClassVar

import pytest


@pytest.fixture
def write_tfds(tmp_path, monkeypatch) -> Callable[[str, dict, list[dict]], None]:
    """(name, features, examples) -> a prepared data set `tfds:name:train`."""
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
