#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: BertModel masks the same tokens with attn_implementation="sdpa" and "eager", and asking for attention maps, which
#           needs "eager", changes no hidden state.
# Seen:     a boolean mask of shape (batch, 1, to, from) is used by "sdpa" (True: read). "eager" adds it to the scores, so
#           that True is 1, False is 0 and nothing is masked. A mask of 0.0 and 1.0 is added by both. No warning is given.
#           A mask of shape (batch, tokens) works in each case.
# Matters:  which words read which regions is such a mask. The model answers well until somebody looks at its attention,
#           and then the maps show tokens that it never read. vllm-project/speculators met it in its pull request 691.
# Remedy:   pass an additive mask: torch.where(mask, 0.0, torch.finfo(dtype).min).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys
import warnings

import torch
from transformers import BertConfig, BertModel

warnings.simplefilter("error")
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50}
ids, other_ids = torch.tensor([[1, 7, 9, 4, 2, 3]]), torch.tensor([[1, 7, 9, 4, 22, 33]])  # the last two are masked
by_token = torch.tensor([[True, True, True, True, False, False]])
by_pair = by_token[:, None, None].expand(1, 1, 6, 6)
masks = {
    "(1, 6) of bool": by_token,
    "(1, 1, 6, 6) of bool": by_pair,
    "(1, 1, 6, 6) of 0.0 and 1.0": by_pair.float(),
    "(1, 1, 6, 6), additive": torch.where(by_pair, 0.0, torch.finfo(torch.float32).min),
}
masked = {}
for implementation in ("sdpa", "eager"):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**small, attn_implementation=implementation)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    for name, mask in masks.items():
        with torch.no_grad():
            one, other = (model(words, attention_mask=mask).last_hidden_state[:, :4] for words in (ids, other_ids))
        change = (one - other).abs().max().item()
        masked[implementation, name] = change < 1e-5
        print(f"{implementation}, mask {name}: other words at the masked places change the others' states by {change:.1e}")
wrong = [("sdpa", "(1, 1, 6, 6) of 0.0 and 1.0"), ("eager", "(1, 1, 6, 6) of bool"), ("eager", "(1, 1, 6, 6) of 0.0 and 1.0")]
sys.exit([key for key, value in masked.items() if not value] != wrong)
PY
