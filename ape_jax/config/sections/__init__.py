"""The sections of a config: every key with its type, default, check and words, in one place.

A section is a frozen dataclass; `section.key` holds what makes a value of a key right. `Config`
(`config.experiment`) puts the sections together.
"""

from ape_jax.config.sections.classifier import ClassifierConfig
from ape_jax.config.sections.data import AugmentConfig, CacheConfig, DataConfig, LatentConfig
from ape_jax.config.sections.model import (
    ClosedConfig,
    HeadConfig,
    ImageConfig,
    ImageHeadConfig,
    PeftConfig,
    SideConfig,
    StartConfig,
    TextConfig,
    TextHeadConfig,
)
from ape_jax.config.sections.training import (
    EvalConfig,
    LossConfig,
    MeshConfig,
    OptimConfig,
    StructureConfig,
    SubwordsConfig,
    TrainConfig,
)
from ape_jax.config.sections.unpaired import UnpairedConfig

__all__ = [
    "AugmentConfig",
    "CacheConfig",
    "ClassifierConfig",
    "ClosedConfig",
    "DataConfig",
    "EvalConfig",
    "HeadConfig",
    "ImageConfig",
    "ImageHeadConfig",
    "LatentConfig",
    "LossConfig",
    "MeshConfig",
    "OptimConfig",
    "PeftConfig",
    "SideConfig",
    "StartConfig",
    "StructureConfig",
    "SubwordsConfig",
    "TextConfig",
    "TextHeadConfig",
    "TrainConfig",
    "UnpairedConfig",
]
