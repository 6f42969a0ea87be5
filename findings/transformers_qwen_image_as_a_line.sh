#!/usr/bin/env bash
# Package:  transformers 5.24.0, compared with 4.57.6, with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: given input_ids, attention_mask, pixel_values and image_grid_thw, Qwen2.5-VL numbers the tokens of the image by
#           row and column, as with transformers 4, or says that an input is missing.
# Seen:     version 5 also needs mm_token_type_ids, a new output of the processor. Without it Qwen2-VL and Qwen3-VL raise a
#           ValueError, and Qwen2.5-VL numbers the tokens of the image in a line, like words, in forward and in generate:
#           the logits are those of such positions, bit for bit. No warning is given.
# Matters:  a collator or a wrapper that passes these four inputs by name goes on training and answering, and the language
#           model no longer sees which tokens are in one row. ModelTC/LightX2V met it in its issue 1416.
# Remedy:   pass all that the processor returns, or mm_token_type_ids=(input_ids == config.image_token_id).int().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >positions.py <<'PY'
import logging
import sys

import torch
import transformers

logging.disable(logging.WARNING)
rope = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 60}
text = {**text, "intermediate_size": 64, "rope_scaling": rope, "rope_parameters": rope}
vision = {"depth": 2, "num_heads": 4, "hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2, "in_channels": 3}
ids = {"image_token_id": 59, "video_token_id": 58, "vision_start_token_id": 57, "vision_end_token_id": 56}


def make(name, **sizes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(text_config=dict(text), vision_config={**vision, **sizes}, **ids)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


# An image of 8 x 8 patches, merged into 4 x 4 tokens, between words.
tokens = torch.tensor([[1, 5, 57] + [59] * 16 + [56, 7, 8]])
inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "image_grid_thw": torch.tensor([[1, 8, 8]])}
inputs["pixel_values"] = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
in_a_line = torch.arange(tokens.shape[1]).expand(3, 1, -1)
model = make("Qwen2_5_VL", out_hidden_size=32, intermediate_size=64, fullatt_block_indexes=[0, 1], window_size=16)
with torch.no_grad():
    logits = model(**inputs).logits
    distance = (logits - model(**inputs, position_ids=in_a_line).logits).abs().max().item()
print(f"transformers {transformers.__version__}: the logits are {distance:.2g} from those of positions in a line")
if transformers.__version__.startswith("4."):
    sys.exit(not distance > 0.1)

types = {"mm_token_type_ids": (tokens == 59).int()}
with torch.no_grad():
    change = (logits - model(**inputs, **types).logits).abs().max().item()
answer = model.generate(**inputs, max_new_tokens=8)[0, -8:].tolist()
answer_with_types = model.generate(**inputs, **types, max_new_tokens=8)[0, -8:].tolist()
print(f"with mm_token_type_ids they change by {change:.2g}, and the answer changes from {answer} to {answer_with_types}")
try:
    make("Qwen2VL", embed_dim=32, mlp_ratio=2)(**inputs)
    refused = False
except ValueError as error:
    print("Qwen2-VL:", str(error).split(". ")[0])
    refused = "`mm_token_type_ids` is missing" in str(error)
sys.exit(not (distance == 0 and change > 0.1 and answer != answer_with_types and refused))
PY
python3 -m venv venv
for version in 4.57.6 5.24.0; do
    venv/bin/pip install --quiet transformers==$version torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
    venv/bin/python positions.py
done
