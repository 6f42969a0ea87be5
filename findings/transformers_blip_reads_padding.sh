#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: BlipForQuestionAnswering returns the same answer to a question whether or not it is padded to the length of
#           another question of the batch, because attention_mask marks the padding.
# Seen:     the answer decoder attends to the padding. `generate` builds a mask of ones in place of the given one, and the
#           cross-attention of BLIP's text layers reads a mask that it is never passed, so a right mask has no effect either.
#           A question has another loss, other scores and another answer with padding than alone.
# Matters:  answers of BLIP in batches depend on the other questions of the batch, in training and in evaluation.
# Remedy:   put questions of one length into a batch, or ask one by one.
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
from transformers import BlipConfig, BlipForQuestionAnswering

logging.disable(logging.WARNING)
torch.manual_seed(0)
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
text = {**small, "encoder_hidden_size": 32, "vocab_size": 50, "max_position_embeddings": 64}
ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 2}
config = BlipConfig(text_config={**text, **ids}, vision_config={**small, "image_size": 32, "patch_size": 16})
model = BlipForQuestionAnswering(config).eval()
for weight in model.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, std=0.3)
pixels, answer = torch.rand(1, 3, 32, 32), torch.tensor([[1, 5, 6, 2]])
alone = {"input_ids": torch.tensor([[1, 7, 9, 4, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.int64)}
padded = {name: torch.nn.functional.pad(value, (0, 20)) for name, value in alone.items()}

losses, states, written = {}, {}, {}
with torch.no_grad():
    image = model.vision_model(pixels)[0]
    for name, question in {"alone": alone, "padded": padded}.items():
        losses[name] = model(**question, pixel_values=pixels, labels=answer).loss.item()
        states[name] = model.text_encoder(**question, encoder_hidden_states=image)[0][:, :5]
        written[name] = model.generate(**question, pixel_values=pixels, max_new_tokens=6)[0].tolist()
        print(f"{name}: loss {losses[name]:.4f}, generated {written[name]}")
encoder = (states["alone"] - states["padded"]).abs().max().item()
print(f"the encoded question itself differs by {encoder:.1e}")
differs = abs(losses["alone"] - losses["padded"]) > 1e-3 and written["alone"] != written["padded"]
sys.exit(not (encoder < 1e-4 and differs))
PY
