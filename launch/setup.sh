# shellcheck shell=bash
# Sourced by demo.sh and test.sh: makes .venv once, with the exact versions of constraints/, and puts it first.
# Usage: . launch/setup.sh; set_up PART...      (run from anywhere; changes to the repository's root)
# The parts are those of constraints/py311.txt. PYTHON=python3.12 chooses a Python, which has .venv-3.12.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '\n== %s\n' "$*"; }

find_python() {
  for python in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
    [ -z "${PYTHON:-}" ] || break
  done
  echo "error: ${PYTHON:-no Python of version 3.11 or later} was not found; install one or set PYTHON" >&2
  exit 1
}

# Prints the lines of a part.
part() { awk -v want="# [$1]" '/^# \[/ { on = $0 == want } on' "constraints/$lane.txt"; }

# pip installs what is written in a part, and nothing else: files with one of its hashes. What is no
# wheel is built with what the part `build` has put there, and fetches nothing. More arguments are pip's.
install_part() {
  local name=$1
  shift
  part "$name" >"$venv/$name.txt"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
    --no-build-isolation "$@" -r "$venv/$name.txt"
}

# Whether the PyTorch that is installed is a build that needs packages for GPUs.
torch_asks_for_gpus() {
  "$venv/bin/python" -c '
import importlib.metadata as found, sys
needs = [line.partition(";")[0] for line in found.requires("torch") or [] if "extra ==" not in line]
sys.exit(not any(line.startswith(("cuda-", "nvidia-", "triton")) for line in needs))'
}

# The build for CPUs, where pip finds one that is known; otherwise the index's, and what that asks for.
install_torch() {
  if part torch-cpu | grep -q == && install_part torch-cpu 2>/dev/null; then return; fi
  install_part torch
  if [ "$(uname -s)" = Linux ] && torch_asks_for_gpus; then install_part torch-gpu; fi
}

# The same into a folder of the environment, where no other command finds it.
install_apart() {
  local name=$1 folder=$venv/$2 stamp
  stamp=$folder/installed-$(part "$name" | cksum | tr -d ' ')
  [ -e "$stamp" ] || { rm -rf "$folder" && install_part "$name" --upgrade --target "$folder" && touch "$stamp"; }
}

set_up() {
  local python stamp name version
  python=$(find_python) || exit
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  venv=.venv lane=py${version/./}
  if [ -n "${PYTHON:-}" ] && [ "$version" != 3.11 ]; then venv=.venv-$version; fi
  [ -e "constraints/$lane.txt" ] || lane=py312  # Tested on Python 3.12.
  stamp=$venv/installed-$(cat "constraints/$lane.txt" pyproject.toml | cksum | tr -d ' ')
  if [ -e "$stamp" ] && grep -qxF "$*" "$stamp"; then
    say "packages are installed ($venv)"
  else
    say "installing packages into $venv ($("$python" --version)); a minute or two the first time"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
    install_part build
    for name in "$@"; do
      if [ "$name" = test ]; then
        install_torch
      fi
      install_part "$name"
    done
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    # What other versions of the files installed is no longer there.
    find "$venv" -maxdepth 1 -name 'installed-*' ! -path "$stamp" -delete
    echo "$*" >>"$stamp"
  fi
  export PATH="$PWD/$venv/bin:$PATH"
  # Idle threads that spin cost other processes on a small machine dearly.
  export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
}
