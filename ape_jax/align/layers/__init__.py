"""Which layers of two towers go together best: scores on a sample of pairs, and the choice."""

from ape_jax.align.layers.choice import Choice, Question, choose
from ape_jax.align.layers.neighbours import calibrated, mutual_overlap, nearest, rice_k
from ape_jax.align.layers.readings import LayerVectors, Reading, joins
from ape_jax.align.layers.retrieval import Split, concept_splits, held_out_cca

__all__ = [
    "Choice",
    "LayerVectors",
    "Question",
    "Reading",
    "Split",
    "calibrated",
    "choose",
    "concept_splits",
    "held_out_cca",
    "joins",
    "mutual_overlap",
    "nearest",
    "rice_k",
]
