# Sourced by demo.sh and test.sh: makes .venv once for each requirements file and puts it first.
# Usage: . launch/setup.sh REQUIREMENTS...      (run from anywhere; changes to the repository's root)

cd "$(dirname "${BASH_SOURCE[0]}")/.."

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
  local stamp="" wanted
  wanted=$(cat "$@" pyproject.toml | cksum)
  [ -f .venv/stamp ] && stamp=$(cat .venv/stamp)
  case "$stamp" in
    *"$wanted"*) say "packages are installed (.venv)" ;;
    *)
      local python
      python=$(find_python)
      say "installing packages into .venv ($("$python" --version)); a minute or two the first time"
      [ -x .venv/bin/python ] || "$python" -m venv .venv
      local file args=()
      for file in "$@"; do args+=(-r "$file"); done
      .venv/bin/python -m pip install --quiet --disable-pip-version-check "${args[@]}"
      .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
      echo "$wanted" >>.venv/stamp
      ;;
  esac
  export PATH="$PWD/.venv/bin:$PATH"
  # Idle threads that spin cost other processes on a small machine dearly.
  export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
}
