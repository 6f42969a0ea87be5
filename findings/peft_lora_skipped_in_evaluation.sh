#!/usr/bin/env bash
# Package:  peft 0.21.2 with transformers 5.24.0, accelerate 1.15.0 and torch 2.13.0 (200 MB for a CPU build, several GB
#           with CUDA)
# Expected: a torch.nn.TransformerEncoder with LoRA adapters computes the same in training and in evaluation, and an
#           adapter that target_modules="all-linear" adds is trained.
# Seen:     in evaluation without gradients, torch's fast path reads the weights of the layers past the adapters: the output
#           is that of the model without LoRA, bit for bit. The adapter of the attention's output projection is read in
#           neither mode and never gets a gradient. No warning is given.
# Matters:  the training loss falls, and the validation score stays that of the first step. The same model is deployed.
# Remedy:   torch.backends.mha.set_fastpath_enabled(False), or merge_and_unload() before evaluating. For the attention, target
#           the module self_attn, which PEFT adapts since its pull request 1324, and not its out_proj.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet peft==0.21.2 transformers==5.24.0 accelerate==1.15.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model

warnings.simplefilter("error")
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
model = get_peft_model(torch.nn.TransformerEncoder(layer, 2), LoraConfig(target_modules="all-linear"))
tokens, wanted = torch.randn(8, 5, 16), torch.randn(8, 5, 16)


def loss():
    return torch.nn.functional.mse_loss(model(tokens), wanted).item()


model.eval()
with torch.no_grad():
    untrained = loss()
model.train()
optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 0.05)
for _ in range(50):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(tokens), wanted).backward()
    optimizer.step()
adapters = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
without_gradient = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, weight in adapters.items() if weight.grad is None}
with torch.no_grad():
    losses = {"training": loss()}
    model.eval()
    losses["evaluation"] = loss()
    torch.backends.mha.set_fastpath_enabled(False)
    losses["evaluation, no fast path"] = loss()
print(f"loss before training {untrained:.4f}; after it in", ", ".join(f"{mode} {value:.4f}" for mode, value in losses.items()))
print("adapters without a gradient:", *without_gradient)
skipped = losses["evaluation"] == untrained and losses["training"] < 0.9 * untrained
agree = abs(losses["evaluation, no fast path"] - losses["training"]) < 1e-5
sys.exit(not (skipped and agree and without_gradient == {"out_proj"}))
PY
