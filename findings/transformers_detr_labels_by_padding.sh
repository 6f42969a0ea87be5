#!/usr/bin/env bash
# Package:  transformers 5.24.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA), Pillow 13.0.0
# Expected: the image processor of DETR turns annotated boxes into shares of their image, and post_process_object_detection,
#           given the size of the image, turns such shares back into the annotated boxes, whatever else is in the batch.
# Seen:     beside a wider image the labels are shares of the padded width, and post_process_object_detection multiplies by
#           the width of the image. The labels themselves come out as other boxes: x 10 to 60 becomes 5.6 to 33.3. Conditional
#           and Deformable DETR, YOLOS, Grounding DINO and RF-DETR do the same. No warning is given.
# Matters:  the label of a box depends on the other images of the batch. A detector trained so draws boxes, and regions, at
#           wrong places once images are padded, and one of the authors of DETR, who predict shares of the image without its
#           padding (issue 286 of facebookresearch/detr), learns another convention. Pull request 28363 introduced it.
# Remedy:   give images of one size to a batch, or multiply labels["boxes"] by the padded size and divide by labels["size"].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 torch==2.13.0 numpy==2.4.6 pillow==13.0.0 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import logging
import sys
from types import SimpleNamespace

import torch
import transformers
from PIL import Image

logging.disable(logging.WARNING)
narrow, wide = Image.new("RGB", (100, 200)), Image.new("RGB", (300, 200))
annotation = {"bbox": [10, 20, 50, 60], "category_id": 0, "area": 3000, "iscrowd": 0}  # x, y, width, height
annotated = torch.tensor([10.0, 20.0, 60.0, 80.0])
found = {}
for name in ("Detr", "ConditionalDetr", "DeformableDetr", "Yolos", "GroundingDino"):
    processor = getattr(transformers, f"{name}ImageProcessorPil")()
    for batch in ([narrow], [narrow, wide]):
        targets = [{"image_id": number, "annotations": [annotation]} for number in range(len(batch))]
        labels = processor(batch, annotations=targets, return_tensors="pt")["labels"][0]
        # A model that predicts the label exactly.
        exact = SimpleNamespace(logits=torch.tensor([[[9.0, -9.0]]]), pred_boxes=labels["boxes"][None])
        (boxes,) = processor.post_process_object_detection(exact, threshold=0.5, target_sizes=[(200, 100)])
        found[name, len(batch)] = boxes["boxes"][0]
        print(f"{name}, {len(batch)} in the batch: the label is {[round(x, 1) for x in boxes['boxes'][0].tolist()]}")
alone = all(torch.allclose(box, annotated, atol=0.5) for (_, count), box in found.items() if count == 1)
moved = all((box - annotated).abs().max() > 20 for (_, count), box in found.items() if count == 2)
sys.exit(not (alone and moved))
PY
