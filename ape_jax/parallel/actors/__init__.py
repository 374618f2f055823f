"""Actors on a Ray cluster: processes on several machines that do independent tasks."""

from ape_jax.parallel.actors.actor import Again
from ape_jax.parallel.actors.cluster import RayCluster
from ape_jax.parallel.actors.pool import Pool, open_pool

__all__ = ["Again", "Pool", "RayCluster", "open_pool"]
