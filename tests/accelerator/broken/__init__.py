"""Parts that go wrong on purpose, for the tests of what runs them."""
