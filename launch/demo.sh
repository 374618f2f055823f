#!/usr/bin/env bash
# The main job on real input, from nothing: packages, towers and pairs, training, the figures.
# Run it again and only what is missing is done. Usage: launch/demo.sh [WORKDIR]
set -euo pipefail
caller=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up base
workdir=${1:-runs/demo}
case "${1:-}" in "" | /*) ;; *) workdir=$caller/$1 ;; esac

say "fetching towers and pairs (kept in ${APE_JAX_CACHE:-\$HOME/.cache/ape_jax})"
python -m ape_jax.demo --only vit_s14 --only minilm --only emoji

say "aligning a ViT-S/14 with MiniLM on emoji in three ways, three seeds each, beside three baselines"
python -m ape_jax.study --config demo --workdir "$workdir"

say "using the best of them from Python"
python launch/demo_search.py "$workdir"
