#!/usr/bin/env bash
# Package:  huggingface_hub 2.4.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA) and safetensors 0.8.0
# Expected: PyTorchModelHubMixin.from_pretrained reports a weight that is missing in the file.
# Seen:     strict is False by default: the layer keeps its random weights, and no warning is given.
# Matters:  a renamed layer makes a published model answer at random, differently in each process.
# Remedy:   from_pretrained(..., strict=True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet huggingface_hub==2.4.0 torch==2.13.0 safetensors==0.8.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys
import warnings

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file


class Model(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)


model = Model()
model.save_pretrained("model")
weights = load_file("model/model.safetensors")
save_file({name: value for name, value in weights.items() if name.startswith("encoder")}, "model/model.safetensors")
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    loaded = Model.from_pretrained("model")
same = torch.equal(model.head.weight, loaded.head.weight)
print(f"loaded without the weights of the head; they are those that were saved: {same}; warnings: {len(warned)}")
try:
    Model.from_pretrained("model", strict=True)
    refused = False
except RuntimeError as error:
    refused = True
    print(f"strict=True: {str(error).splitlines()[0]}")
sys.exit(same or bool(warned) or not refused)
PY
