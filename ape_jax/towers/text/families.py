"""The list of text families."""

from __future__ import annotations

from ape_jax.towers.family import Family
from ape_jax.towers.text.bert import BERT, DISTILBERT, ROBERTA
from ape_jax.towers.text.clip_text import CLIP_TEXT
from ape_jax.towers.text.mpnet import MPNET
from ape_jax.towers.text.siglip_text import SIGLIP_TEXT

TEXT: tuple[Family, ...] = (BERT, ROBERTA, DISTILBERT, MPNET, CLIP_TEXT, SIGLIP_TEXT)
