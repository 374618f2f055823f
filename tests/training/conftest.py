"""What tests of the training loop share."""

import pytest

from ape_jax.training import loop


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    """A feature cache that the tests of training share: how it is filled has tests of its own."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def tiny_config(new_tiny_config, features):
    config = new_tiny_config()
    config.cache.dir = str(features)
    return config


@pytest.fixture
def blocks_through(monkeypatch):
    """Passes the blocks of every run through a function; returns what undoes it."""
    original = loop.open_feed

    def arm(change):
        def open_feed(run):
            feed = original(run)
            made = feed.blocks
            feed.blocks = lambda start, stop: change(made(start, stop))
            return feed

        monkeypatch.setattr(loop, "open_feed", open_feed)
        return lambda: monkeypatch.setattr(loop, "open_feed", original)

    return arm
