#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: a vision-language transformer in eval mode returns the same hidden states for the same input, and the patch at
#           place i of the sequence is the i-th patch of the image.
# Seen:     ViltModel draws a new random order of the patches of the largest image of a batch in every call, in eval mode
#           too. The set of hidden states is the same, so pooled outputs and answers do not show it. The draw also takes
#           numbers from torch's global generator.
# Matters:  attention maps and patch features of ViLT, a usual baseline of VQA, fall on other places of the image in every
#           call, and dropout after a validation is another than without it.
# Remedy:   pass image_embeds, the patches in a fixed order with their position embeddings, in place of pixel_values.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import logging
import sys

import torch
from transformers import ViltConfig, ViltModel

logging.disable(logging.WARNING)
torch.manual_seed(0)
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50}
model = ViltModel(ViltConfig(**small, image_size=64, patch_size=16)).eval()
inputs = {
    "input_ids": torch.tensor([[1, 7, 9, 4, 2]]),
    "pixel_values": torch.rand(1, 3, 64, 64),
    "pixel_mask": torch.ones(1, 64, 64, dtype=torch.int64),
}
before = torch.get_rng_state()
with torch.no_grad():
    first, second = (model(**inputs) for _ in range(2))
pooled = (first.pooler_output - second.pooler_output).abs().max().item()
one, other = (output.last_hidden_state[0, 6:] for output in (first, second))  # after 5 words and the class token: 16 patches
same_place = (one - other).abs().max().item()
same_set = torch.cdist(one, other).min(1).values.max().item()
consumed = not torch.equal(before, torch.get_rng_state())
print(f"two calls: pooled outputs differ by {pooled:.1e}, patches at the same place by {same_place:.2f}, ", end="")
print(f"each patch from its nearest in the other call by {same_set:.1e}")
print(f"torch's generator has moved on: {consumed}")
sys.exit(not (pooled < 1e-5 and same_set < 1e-3 and same_place > 0.5 and consumed))
PY
