#!/usr/bin/env bash
# The main job on real input, from nothing: packages, towers and pairs, training, the figures.
# Run it again and only what is missing is done. Usage: launch/demo.sh [WORKDIR]
set -euo pipefail
workdir=$(realpath -m "${1:-$(dirname "$0")/../runs/demo}")
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
set_up requirements.txt

say "fetching towers and pairs (kept in ${APE_JAX_CACHE:-\$HOME/.cache/ape_jax})"
python -m ape_jax.demo --only vit_s14 --only minilm --only emoji

say "aligning a ViT-S/14 with MiniLM on emoji, three seeds, beside four baselines"
python -m ape_jax.study --config configs/demo.py --workdir "$workdir"

say "using the result from Python"
python - "$workdir" <<'PYTHON'
import sys
from ape_jax import load
from ape_jax.demo import emoji

model = load(f"{sys.argv[1]}/ape/seed0")
pairs = emoji.read_pairs("openmoji", "en", "test")
z = model.encode_image([image for image, *_ in pairs])
for query in ("something sweet to eat", "an animal that lives in the sea", "public transport"):
    best = (z @ model.encode_text([query])[0]).argsort()[::-1][:5]
    print(f"{query!r}: {', '.join(pairs[i][1][0] for i in best)}")
PYTHON
