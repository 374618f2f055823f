#!/usr/bin/env bash
# Everything a change must pass: set-up, demo assets, formatting, lint, tests.
# Usage: launch/test.sh [all] [pytest arguments]     `all` runs tests marked slow as well.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up requirements.txt requirements-dev.txt requirements-cpu.txt
# Its own requirements hold numpy back and pull in torchvision; its metric functions need neither.
python -c 'import importlib.metadata as m; m.version("clip_benchmark")' 2>/dev/null ||
  python -m pip install --quiet --disable-pip-version-check --no-deps clip-benchmark==1.6.2 open-clip-torch==3.3.0

# The TPU compiler for the tests of the planner, where no other command finds it: with it among the
# packages, JAX would look for a TPU at every start.
compiler=$(sed -n 's/^libtpu==//p' requirements-tpu.txt)
[ -e ".venv/tpu/libtpu-$compiler.dist-info" ] ||
  python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/tpu -r requirements-tpu.txt
# And that for GPUs.
plugin=$(sed -n 's/^jax-cuda12-plugin==//p' requirements-gpu-plan.txt)
[ -e ".venv/gpu/jax_cuda12_plugin-$plugin.dist-info" ] ||
  python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/gpu -r requirements-gpu-plan.txt

# What clip_benchmark's own command needs, for one of the slow tests. Also apart: where torchvision is,
# transformers resizes images with it, and other tests compare with Pillow.
if [ "${1:-}" = all ] && [ ! -e .venv/judges/torchvision ]; then
  python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/judges -r requirements-judges.txt
fi

say "fetching demo assets"
python -m ape_jax.demo

say "formatting and lint"
ruff format --check .
ruff check .

say "tests"
marks="not slow"
if [ "${1:-}" = all ]; then marks="" && shift; fi
# A process a core; the tests of a file stay together, since they share what it sets up.
python -m pytest -m "$marks" --numprocesses auto --dist loadfile --durations=15 "$@"
