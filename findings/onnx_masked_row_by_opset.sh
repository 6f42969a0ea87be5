#!/usr/bin/env bash
# Package:  torch 2.13.0 (200 MB for a CPU build, several GB with CUDA), onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0
# Expected: an exported attention returns what torch returns.
# Seen:     for a row whose keys are all masked, torch returns zeros. Exported at opset 20 (the default) and 22, onnxruntime
#           returns the mean of the values; from opset 23, which has the operator Attention, it returns zeros.
# Matters:  parity tests on rows with at least one key do not notice it. An image without regions then attends to padding.
# Remedy:   export at opset 23 or later, or mask the output as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import logging
import sys
import warnings

import onnxruntime
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Attention(torch.nn.Module):
    def forward(self, query, key, value, mask):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


values = torch.arange(6.0).reshape(1, 1, 3, 2)
inputs = (torch.rand(1, 1, 1, 2), torch.rand(1, 1, 3, 2), values, torch.zeros(1, 1, 1, 3, dtype=torch.bool))
zeros, mean = [0.0, 0.0], values.mean(2).flatten().tolist()
seen = {"torch": Attention()(*inputs).flatten().tolist()}
for opset in (20, 22, 23):
    torch.onnx.export(Attention(), inputs, "attention.onnx", opset_version=opset, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession("attention.onnx")
    feeds = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), inputs)}
    seen[f"opset {opset}"] = [round(float(value), 4) for value in session.run(None, feeds)[0].flatten()]
for name, row in seen.items():
    print(f"{name}: {row}")
sys.exit(seen != {"torch": zeros, "opset 20": mean, "opset 22": mean, "opset 23": zeros})
PY
