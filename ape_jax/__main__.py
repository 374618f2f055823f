"""`python -m ape_jax`: the commands, as `ape-jax` lists and starts them."""

from ape_jax.cli import main

if __name__ == "__main__":
    main()
