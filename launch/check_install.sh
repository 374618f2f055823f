#!/usr/bin/env bash
# Whether the wheel can be put where the newest jax, numpy, pandas, pillow, transformers and torch are, changes none
# of their versions and works there, from an empty directory and in the notebooks; and how large it is with all that
# it needs.
# Usage: launch/check_install.sh [--no-torch] [WHEEL]       PYTHON chooses a Python, by default python3.12
set -euo pipefail
unset PYTHONPATH

fail() { echo "error: $*" >&2; exit 1; }

there=(jax numpy pandas pillow transformers torch)
if [ "${1:-}" = --no-torch ]; then unset 'there[-1]' && shift; fi
python=${PYTHON:-python3.12}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
wheel=${1:-}
[ -z "$wheel" ] || wheel=$(realpath "$wheel")
cd "$folder"

pip() { "$1/bin/python" -m pip --disable-pip-version-check "${@:2}"; }

"$python" -m venv old && "$python" -m venv new
if [ -z "$wheel" ]; then
  pip new wheel --quiet --no-deps --wheel-dir . "$repository"
  wheel=$(echo "$folder"/ape_jax-*.whl)
fi

echo "== beside the newest ${there[*]} on $("$python" --version)"
pip old install --quiet --upgrade "${there[@]}"
pip old freeze >before.txt
pip old install --quiet "$wheel"
pip old freeze >after.txt
pip old check
changed=$(grep -vxFf after.txt before.txt || true)
[ -z "$changed" ] || fail "installing the wheel changed: $changed"
grep -iE "^($(IFS='|'; echo "${there[*]}"))==" after.txt
echo "none of $(wc -l <before.txt) packages was changed"

echo "== from an empty directory"
pip old install --quiet "${wheel}[demo]"  # Draws the pairs of the demo where they are not there yet.
mkdir empty && cd empty
"$folder/old/bin/ape-jax" train --config few_pairs:runlocal --workdir run
[ -s run/summary.json ] || fail "there is no summary.json"
cd ..

if [ "${there[-1]}" = torch ]; then
  echo "== notebooks"
  pip old install --quiet "${wheel}[demo,export]" ipykernel nbclient nbformat pytest
  pip old freeze >after.txt
  changed=$(grep -vxFf after.txt before.txt || true)
  [ -z "$changed" ] || fail "installing for the notebooks changed: $changed"
  (cd "$repository" && "$folder/old/bin/python" -m pytest -q -o addopts= -p no:cacheprovider tests/test_notebooks.py)
fi

echo "== alone"
pip new install --quiet "$wheel" 2>warnings.txt
cat warnings.txt
pip new uninstall --quiet --yes pip
whole=$(du -sm new/lib/python*/site-packages | cut -f1)
find new/lib/python*/site-packages -name __pycache__ -exec rm -rf {} +
size=$(du -sm new/lib/python*/site-packages | cut -f1)
echo "with all that it needs: $size MB, and $((whole - size)) MB of bytecode that pip makes"
[ "$size" -le 1000 ] || fail "more than 1,000 MB"
new/bin/python - <<'END'
import subprocess, sys, time

def seconds(code):
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - started

took = min(seconds("import ape_jax") for _ in range(5)) - min(seconds("") for _ in range(5))
print(f"import ape_jax: {took:.3f} s")
END
