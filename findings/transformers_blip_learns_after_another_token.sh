#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: BlipForQuestionAnswering, fine-tuned as its docstring shows (the labels are the processor's ids of the answer),
#           answers its training questions as it was taught once the loss is near zero.
# Seen:     the ids begin with [CLS], and are read as they are: the answer is learned after [CLS]. `generate` begins with
#           [DEC], the token of text_config.bos_token_id, which training never reads. A small model that knew other answers
#           reaches a loss of 0.01, and after [DEC] it has 0.66 and gives 11 of 16 new answers (others 9 to 15). With
#           [DEC] as the first label it has 0.01 there too and gives 16. No warning is given.
# Matters:  a fine-tuned BLIP answers worse than its loss says, and the fault looks like too little data. The authors of BLIP
#           put [DEC] at this place before they compute the loss (models/blip_vqa.py).
# Remedy:   labels[:, 0] = model.decoder_start_token_id
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import copy
import logging
import sys

import torch
from transformers import BlipConfig, BlipForQuestionAnswering

logging.disable(logging.WARNING)
torch.set_num_threads(1)
PAD, CLS, SEP, DEC = range(4)
small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "projection_dim": 16}
ids = {"bos_token_id": DEC, "eos_token_id": SEP, "pad_token_id": PAD, "sep_token_id": SEP}
text = {**small, **ids, "encoder_hidden_size": 32, "vocab_size": 30, "max_position_embeddings": 16}
text |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
vision = {**small, "image_size": 16, "patch_size": 8}
config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16)
# Sixteen questions of two words, with one word each as their old and their new answer.
numbers = torch.arange(16)
special = torch.ones(16, dtype=torch.int64)
questions = torch.stack([CLS * special, 4 + numbers % 8, 12 + numbers // 8, SEP * special], 1)
inputs = {"input_ids": questions, "attention_mask": torch.ones_like(questions), "pixel_values": torch.zeros(16, 3, 16, 16)}
old, new = 15 + 7 * numbers % 11, 15 + (5 * numbers + 3) % 11


def with_first(token, answers):
    """The labels of one-word answers."""
    return torch.stack([token * special, answers, SEP * special], 1)


def train(model, labels, lr, least):
    """Until the loss is below `least`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    loss = torch.tensor(1.0)
    while loss > least:
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


torch.manual_seed(0)
taught = BlipForQuestionAnswering(config)
train(taught, with_first(DEC, old), 3e-3, 0.001)
after, right = {}, {}
for name, first in {"[CLS]": CLS, "[DEC]": DEC}.items():
    model = copy.deepcopy(taught)
    loss = train(model, with_first(first, new), 3e-4, 0.01)
    with torch.no_grad():
        after[name] = model.eval()(**inputs, labels=with_first(DEC, new)).loss.item()
    right[name] = int((model.generate(**inputs, max_new_tokens=2)[:, 1] == new).sum())
    seen = f"after [DEC] {after[name]:.2f}, {right[name]} of 16 answers are generated"
    print(f"labels begin with {name}: loss {loss:.2f}, {seen}")
sys.exit(not (after["[CLS]"] > 0.1 and right["[CLS]"] < right["[DEC]"] == 16))
PY
