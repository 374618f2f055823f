#!/usr/bin/env bash
# Everything a change must pass: set-up, demo assets, formatting, lint, tests.
# Usage: launch/test.sh [all] [pytest arguments]     `all` runs tests marked slow as well.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
parts=(base test)
[ "$(uname -m)" != x86_64 ] || parts+=(cpu)
set_up "${parts[@]}"

# The tests of pages drive the system's Chromium (tests/pages/served/test_browser.py). Where there is none they
# are skipped, and the end of the output says so; on a CI machine that may install one it is Debian's.
# Pip has none: playwright's own comes from a server of its makers.
if [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then
  say "installing Chromium"
  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core; } >/dev/null ||
    echo "Chromium could not be installed"
fi

# Python's files are kept compiled, whatever the environment says: workers collect in two thirds of the time,
# and each of the many processes that tests start imports half a second sooner.
unset PYTHONDONTWRITEBYTECODE

# Whether tests of this path are run: all are where no path is named.
asked() {
  local tests=$1 word named=
  shift
  for word in "$@"; do
    word=${word%%::*} word=${word%/}
    case $tests/ in "$word"/*) return 0 ;; esac
    case $word/ in "$tests"/*) return 0 ;; esac
    [ ! -e "$word" ] || named=1
  done
  [ -z "$named" ]
}

# The compilers for TPUs and GPUs for the tests of the planner, where no other command finds them: with
# them among the packages, JAX would look for a TPU or a GPU at every start. They are a gigabyte.
if asked tests/test_plan.py "$@"; then
  install_apart plan-tpu tpu
  install_apart plan-gpu gpu
fi

# timm, with which towers are compared, and what clip_benchmark's own command needs, for one of the slow
# tests. Also apart: where torchvision is, transformers resizes images with it, and other tests compare
# with Pillow.
if asked tests/towers "$@" || asked tests/test_judge.py "$@"; then install_apart judges judges; fi

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
