#!/usr/bin/env bash
# Checks and measures ape_jax on this machine's GPU, TPU or processor: see docs/how-to/accelerators.md.
# Usage: launch/accelerator.sh [--device gpu|tpu|cpu] [--small] [--minutes N] [--out DIR] [--wheels DIR] [PART...]
#        launch/accelerator.sh --list
#        launch/accelerator.sh --fetch-wheels DIR [--python 3.12] [--there FREEZE.txt] [--machine x86_64]
# Runs with the Python and the jax that are there (PYTHON=... chooses one) and needs no network: what they lack
# comes out of a folder of wheels. The last form fills such a folder, on a machine that has a network.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  echo "error: $*" >&2
  exit 2
}

for python in ${PYTHON:+"$PYTHON"} python python3 ""; do
  [ -n "$python" ] || die "no Python was found; set PYTHON to the one that has jax"
  if command -v "$python" >/dev/null; then break; fi
  [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON was not found; write the path of the Python that has jax"
done
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$python is $("$python" --version 2>&1); ape_jax needs Python 3.11 or later; set PYTHON to another"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

device=gpu wheels='' words=()
while [ $# -gt 0 ]; do
  case $1 in
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    --fetch-wheels)
      shift
      exec "$python" "$root/launch/wheels.py" fetch "$@"
      ;;
    --wheels) wheels=${2:?"--wheels: expected a folder"} && shift 2 ;;
    --device) device=${2:?"--device: expected gpu, tpu or cpu"} && words+=("$1" "$2") && shift 2 ;;
    --list) exec "$python" -m tests.accelerator --list ;;
    --help | -h) exec sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}" ;;
    *) words+=("$1") && shift ;;
  esac
done

if [ -n "$wheels" ]; then
  lacking=$(mktemp -d)
  trap 'rm -rf "$lacking"' EXIT
  "$python" "$root/launch/wheels.py" install "$wheels" "$lacking"
  # Behind the repository; nothing that the Python has is in it.
  PYTHONPATH+=":$lacking"
fi
"$python" "$root/launch/wheels.py" check "$device"
# Idle threads that spin cost other processes dearly.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
"$python" -m tests.accelerator ${words[@]+"${words[@]}"}
