"""Uses what the demo has trained: finds OpenMoji drawings, none seen in training, by meaning."""

import sys

from ape_jax import load
from ape_jax.demo.emoji import pairs as emoji

QUERIES = ("something sweet to eat", "an animal that lives in the sea", "public transport")


def main() -> None:
    """Prints the five best drawings for each query."""
    model = load(sys.argv[1])
    pairs = emoji.read_pairs("openmoji", "en", "test")
    hits = model.retrieve(QUERIES, [image for image, *_ in pairs], k=5)
    for query, found in zip(QUERIES, hits):
        print(f"{query!r}: {', '.join(pairs[i][1][0] for i, _ in found)}")


if __name__ == "__main__":
    main()
