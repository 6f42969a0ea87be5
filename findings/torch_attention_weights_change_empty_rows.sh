#!/usr/bin/env bash
# Package:  torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: torch.nn.MultiheadAttention returns the same output with need_weights=True and need_weights=False.
# Seen:     if all keys are masked, the output is NaN with need_weights=True, and finite with need_weights=False in training.
#           In evaluation without gradients, the fused path yields NaN in both cases. scaled_dot_product_attention itself
#           returns zeros for such a row.
# Matters:  an image without detected objects, or an empty question, is such a row. Asking for an attention map then turns a
#           good answer into NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys
from itertools import product

import torch

torch.manual_seed(0)
attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
tokens, all_masked = torch.rand(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)
seen = {}
for training, need_weights in product([True, False], [True, False]):
    with torch.set_grad_enabled(training):
        output, _ = attention.train(training)(
            tokens, tokens, tokens, key_padding_mask=all_masked, need_weights=need_weights
        )
    seen[training, need_weights] = bool(output.isnan().any())
    print(f"training {training}, need_weights {need_weights}: NaN {seen[training, need_weights]}")
query = torch.rand(1, 1, 3, 8)
fused = torch.nn.functional.scaled_dot_product_attention(
    query, query, query, attn_mask=torch.zeros(3, 3, dtype=torch.bool)
)
print(f"scaled_dot_product_attention: largest absolute value {fused.abs().max().item()}")
expected = {(True, True): True, (True, False): False, (False, True): True, (False, False): True}
sys.exit(not (seen == expected and bool((fused == 0).all())))
PY
