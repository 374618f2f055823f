"""Closed-form alignment: heads solved in float64 in seconds, without gradient training.

Strong with few pairs; with many pairs, training can start from their solution.
"""

from ape_jax.align.closed_form.appended import Free, appended
from ape_jax.align.closed_form.asif import Asif, asif, asif_cv
from ape_jax.align.closed_form.cca import Cca, cca, cca_cv
from ape_jax.align.closed_form.matched import Unmatched, cca_matched
from ape_jax.align.closed_form.paired import Paired, from_rows
from ape_jax.align.closed_form.procrustes import Procrustes, procrustes, procrustes_cv
from ape_jax.align.closed_form.ridge import ridge, ridge_cv
from ape_jax.align.closed_form.ridge_pairs import Ridge, ridge_pairs
from ape_jax.align.closed_form.solution import Affine, Solution
from ape_jax.align.closed_form.sums import Moments, moments

__all__ = [
    "Affine",
    "Asif",
    "Cca",
    "Free",
    "Moments",
    "Paired",
    "Procrustes",
    "Ridge",
    "Solution",
    "Unmatched",
    "appended",
    "asif",
    "asif_cv",
    "cca",
    "cca_cv",
    "cca_matched",
    "from_rows",
    "moments",
    "procrustes",
    "procrustes_cv",
    "ridge",
    "ridge_cv",
    "ridge_pairs",
]
