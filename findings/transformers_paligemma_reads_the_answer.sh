#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: PaliGemma reads later words within the prompt only, and token_type_ids tell where it ends. Training without them is
#           causal, or refused, and depends neither on padding nor on the implementation of attention.
# Seen:     with attention "sdpa", the default, and a batch without padding, each word reads all later ones, so the model
#           reads the answer that it learns to write: its loss on random answers falls far below that of the best guess.
#           With attention "eager", or with one padded word, it is causal, the prompt too. No warning is given.
# Matters:  a collator that leaves token_type_ids out trains a model whose loss looks excellent, and which has learned to copy
#           an answer that is not there when it is asked. Its answers also change with padding and with attention maps.
# Remedy:   pass token_type_ids: 0 for the image and the prompt, 1 for the answer. The processor returns them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import math
import sys

import torch
from torch.nn.functional import pad
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

torch.set_num_threads(1)
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
text = {**small, "model_type": "gemma", "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 60, "pad_token_id": 0}
text = {**text, "bos_token_id": 1, "eos_token_id": 2}
vision = {**small, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 8, "projection_dim": 32}
config = PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=59, projection_dim=32, hidden_size=32)


def last_loss(attention, padding=0, with_types=False):
    """Train on random answers of three words among 40, and return the mean loss of the last ten batches."""
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration._from_config(config, attn_implementation=attention)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    losses = []
    for _ in range(150):
        # Four tokens of the image, three words of the question, three of the answer.
        question = torch.tensor([59, 59, 59, 59, 1, 5, 6]).expand(32, 7)
        tokens = torch.cat([question, torch.randint(10, 50, (32, 3))], 1)
        types = (torch.arange(10) >= 7).long().expand(32, 10)
        labels = tokens.where(types == 1, -100)
        inputs = {"input_ids": pad(tokens, (0, padding)), "attention_mask": pad(torch.ones_like(tokens), (0, padding))}
        if with_types:
            inputs["token_type_ids"] = pad(types, (0, padding))
        loss = model(**inputs, pixel_values=torch.rand(32, 3, 16, 16), labels=pad(labels, (0, padding), value=-100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


best_guess = math.log(40)
print(f"loss of the best guess {best_guess:.2f}; after training")
losses = {"sdpa": last_loss("sdpa"), "eager": last_loss("eager")}
losses["sdpa, one padded word"] = last_loss("sdpa", padding=1)
losses["sdpa, token_type_ids"] = last_loss("sdpa", with_types=True)
for name, loss in losses.items():
    print(f"  {name}: {loss:.2f}")
read = losses.pop("sdpa")
sys.exit(not (read < 0.5 * best_guess and min(losses.values()) > 0.95 * best_guess))
PY
