"""Features kept in memory."""

from ape_jax.features import store


def test_store_makes_a_thing_once():
    kept, made = store.FeatureStore(), []
    for _ in range(3):
        kept.get("key", lambda: made.append(1) or 7)
    assert kept.get("key", lambda: 8) == 7 and made == [1]
