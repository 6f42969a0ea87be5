#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: vision models treat an image whose side is no multiple of the patch size alike.
# Seen:     ViT, DINOv2 and ConvNeXt ignore the last rows and columns (the number of patches is rounded down); Swin pads them
#           with zeros (rounded up). An image of 226 pixels has 14 x 14 patches of 16 in ViT, and 29 x 29 of 8 in Swin.
# Matters:  boxes of patches computed by one rule are shifted for the other, and the number of regions does not match.
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
from transformers import (
    ConvNextConfig, ConvNextModel, Dinov2Config, Dinov2Model, SwinConfig, SwinModel, ViTConfig, ViTModel,
)

logging.disable(logging.WARNING)
small = {"image_size": 224, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
models = {
    "vit": (ViTModel(ViTConfig(**small, patch_size=16)).eval(), {"interpolate_pos_encoding": True}, 14 * 14 + 1),
    "dinov2": (Dinov2Model(Dinov2Config(**small, patch_size=14)).eval(), {}, 16 * 16 + 1),
    "convnext": (ConvNextModel(ConvNextConfig(hidden_sizes=[4, 8, 8, 8], depths=[1] * 4)).eval(), {}, 7 * 7),
    "swin": (SwinModel(SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)).eval(), {}, 29 * 29),
}
seen = {}
for name, (model, options, expected) in models.items():
    with torch.no_grad():
        output = model(torch.rand(1, 3, 226, 226), **options).last_hidden_state
    count = output[0, 0].numel() if name == "convnext" else output.shape[1]
    seen[name] = count == expected
    print(f"{name}: {count} places for an image of 226 x 226")
sys.exit(not all(seen.values()))
PY
