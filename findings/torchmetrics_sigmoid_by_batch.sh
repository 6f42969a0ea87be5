#!/usr/bin/env bash
# Package:  torchmetrics 1.9.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: a metric is the same whether its values come in one batch or in two.
# Seen:     BinaryCalibrationError applies a sigmoid to a batch if one of its values lies outside 0 to 1. Logits of one batch
#           that all lie within 0 to 1 are taken for probabilities, so the result depends on how values fall into batches.
# Matters:  calibration and average precision of answer logits change with the evaluation batch size. The rule per call is
#           documented; its effect on streaming is not.
# Remedy:   pass probabilities.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys

import torch
from torchmetrics.classification import BinaryCalibrationError

logits, right = torch.tensor([0.2, 0.4, 3.0, -2.0]), torch.tensor([0, 1, 1, 0])
found = {}
for name, sizes in {"one batch of four": [4], "two batches of two": [2, 2]}.items():
    metric = BinaryCalibrationError(n_bins=10)
    for values, targets in zip(logits.split(sizes), right.split(sizes)):
        metric.update(values, targets)
    found[name] = round(metric.compute().item(), 4)
    print(f"{name}: calibration error {found[name]}")
sys.exit(found["one batch of four"] == found["two batches of two"])
PY
