# shellcheck shell=bash
# Sourced by demo.sh and test.sh: makes .venv once for each requirements file and puts it first.
# Usage: . launch/setup.sh REQUIREMENTS...      (run from anywhere; changes to the repository's root)

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '\n== %s\n' "$*"; }

find_python() {
  for python in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    [ -n "$python" ] || continue
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "error: no Python of version 3.11 or later was found; install one or set PYTHON" >&2
  exit 1
}

set_up() {
  local version stamp python file args=()
  version=$(cat requirements*.txt pyproject.toml | cksum | tr -d ' ')
  stamp=.venv/installed-$version-$#
  if [ -e "$stamp" ]; then
    say "packages are installed (.venv)"
  else
    python=$(find_python)
    say "installing packages into .venv ($("$python" --version)); a minute or two the first time"
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
    for file in "$@"; do args+=(-r "$file"); done
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "${args[@]}"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
    # What other versions of the requirements installed is no longer there.
    find .venv -maxdepth 1 -name 'installed-*' ! -name "installed-$version-*" -delete
    touch "$stamp"
  fi
  export PATH="$PWD/.venv/bin:$PATH"
  # Idle threads that spin cost other processes on a small machine dearly.
  export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
}
