#!/usr/bin/env bash
# Everything a change must pass: set-up, demo assets, formatting, lint, tests.
# Usage: launch/test.sh [all] [pytest arguments]     `all` runs tests marked slow as well.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up requirements.txt requirements-dev.txt requirements-cpu.txt
# Its own requirements hold numpy back and pull in torchvision; its metric functions need neither.
python -c 'import importlib.metadata as m; m.version("clip_benchmark")' 2>/dev/null ||
  python -m pip install --quiet --disable-pip-version-check --no-deps clip-benchmark==1.6.2 open-clip-torch==3.3.0

# Gradio asks for an older Pillow than ours and runs with ours (requirements-app.txt).
python -c 'import importlib.metadata as m; m.version("gradio")' 2>/dev/null ||
  python -m pip install --quiet --disable-pip-version-check --no-deps gradio==6.31.0

# The tests of pages drive the system's Chromium (tests/pages/test_browser.py). Where there is none they
# are skipped, and the end of the output says so; on a CI machine that may install one it is Debian's.
# Pip has none: playwright's own comes from a server of its makers.
if [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then
  say "installing Chromium"
  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core; } >/dev/null ||
    echo "Chromium could not be installed"
fi

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

say "rooms and types"
lint-imports
pyright

say "tests"
marks="not slow"
if [ "${1:-}" = all ]; then marks="" && shift; fi
# A process a core; the tests of a file stay together, since they share what it sets up. Files go out in
# their order and not by their number of tests: few tests are often the long ones, which must not come
# last. Pictures of the pages are left in $APE_JAX_ARTIFACTS, by default build/artifacts.
python -m pytest -m "$marks" --numprocesses auto --dist loadfile --no-loadscope-reorder --durations=15 -rs "$@"
