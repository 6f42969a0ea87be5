#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA), Pillow 13.0.0
# Expected: OWL-ViT searches each image of a batch for the queries of that image. The processor pads shorter lists of queries,
#           and OwlViTForObjectDetection masks padded queries ("If first token is 0, then this is a padded query").
# Seen:     the processor pads with the query " ", whose first token is the start of a text, so that nothing is masked. An
#           image with one query beside an image with two gets boxes of a second query that nobody asked for, and each box
#           that scores higher there is lost to the first. OWLv2 shares the code. No warning is given.
# Matters:  detections of an image, and so its regions, depend on the queries of the other images of the batch. The authors
#           of OWL-ViT call it unintended in issue 641 of google-research/scenic, which has it too.
# Remedy:   set outputs.logits[image, :, number_of_queries:] to -inf before post-processing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.4.6 pillow==13.0.0 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import string
import sys

import numpy
import torch
from PIL import Image
from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessorPil, OwlViTProcessor

# CLIP's tokenizer with letters only. As in CLIP, the padding "!" has number 0.
letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
numbers = {token: number for number, token in enumerate(["!", *letters, "<|startoftext|>", "<|endoftext|>"])}
tokenizer = CLIPTokenizer(vocab=numbers, merges=[], pad_token="!", model_max_length=16)
processor = OwlViTProcessor(OwlViTImageProcessorPil(size={"height": 64, "width": 64}), tokenizer)

torch.manual_seed(0)
small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ids = {"bos_token_id": numbers["<|startoftext|>"], "eos_token_id": numbers["<|endoftext|>"], "pad_token_id": 0}
text, vision = {**small, **ids, "vocab_size": len(numbers)}, {**small, "image_size": 64, "patch_size": 8}
model = OwlViTForObjectDetection(OwlViTConfig(text_config=text, vision_config=vision, projection_dim=32)).eval()
for weight in model.parameters():
    if weight.ndim > 1:
        torch.nn.init.normal_(weight, std=0.3)
pixels = numpy.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=numpy.uint8)
images = [Image.fromarray(image) for image in pixels]


def boxes_per_query(images, queries):
    inputs = processor(images=images, text=queries, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    found = processor.post_process_grounded_object_detection(outputs, threshold=0.5)[0]["labels"]
    return torch.bincount(found, minlength=outputs.logits.shape[-1]).tolist()


alone = boxes_per_query(images[:1], [["cat"]])
batch = boxes_per_query(images, [["cat"], ["dog", "bus"]])
print("boxes of the first image, whose only query is cat")
print(f"  alone:                                 {alone[0]} of query 0")
print(f"  beside an image with queries dog, bus: {batch[0]} of query 0, {batch[1]} of query 1")
sys.exit(not (alone[0] > batch[0] and batch[1] > 0))
PY
