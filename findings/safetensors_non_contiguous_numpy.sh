#!/usr/bin/env bash
# Package:  safetensors 0.8.0 with numpy 2.4.6
# Expected: safetensors.numpy.save stores the values of an array, or refuses an array that it cannot store.
# Seen:     it stores a non-contiguous array in the order of its memory, without an error: a transposed or strided array
#           is loaded with the right shape and wrong values. safetensors.torch refuses such tensors.
# Matters:  features are often transposed on the way to disk (openvqa keeps them as 2048 x boxes).
# Remedy:   numpy.ascontiguousarray before saving.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet safetensors==0.8.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys

import numpy as np
from safetensors.numpy import load, save

features = np.arange(6, dtype=np.float32).reshape(2, 3)
changed = []
for name, array in {"contiguous": features, "transposed": features.T, "every second column": features[:, ::2]}.items():
    loaded = load(save({"features": array}))["features"]
    print(f"{name}: saved {array.tolist()}, loaded {loaded.tolist()}")
    changed.append(not np.array_equal(array, loaded))
sys.exit(changed != [False, True, True])
PY
