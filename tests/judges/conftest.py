"""A trained tiny model, for all tests of outside judges."""

import pytest

import ape_jax


@pytest.fixture(scope="session")
def aligner(tiny_run):
    return ape_jax.load(tiny_run)
