#!/usr/bin/env bash
# Package:  torchmetrics 1.9.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: metrics with other arguments in a MetricCollection have the values that each of them has alone.
# Seen:     metrics whose states are equal after the first batch are taken for one computation from then on, and later batches
#           reach the first of them only; reset() does not undo it. Accuracy over all answers and over known ones
#           (ignore_index) are equal in a first batch without an unknown answer: then both report the former. Precisions at
#           two confidences behave likewise. compute_groups is documented as grouping metrics that differ in "compute" only.
# Matters:  one line of the log is a copy of another, in some runs only: the order of the first batch decides, which with
#           Lightning is the sanity check. Issues 2596 and 2916 of torchmetrics report other cases; both are closed.
# Remedy:   MetricCollection(..., compute_groups=False).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys
import warnings

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryPrecision, MulticlassAccuracy

warnings.simplefilter("error")
UNKNOWN = 0


def accuracies():
    every = MulticlassAccuracy(num_classes=4, average="micro")
    known = MulticlassAccuracy(num_classes=4, average="micro", ignore_index=UNKNOWN)
    return {"all answers": every, "known answers": known}


def precisions():
    return {f"confidence {percent} %": BinaryPrecision(threshold=percent / 100) for percent in (50, 90)}


answers = [([1, 2], [1, 3]), ([0, 0, 2], [0, 0, 3])]  # batches of predictions and targets; only the second has unknown ones
confidences = [([0.95, 0.2], [1, 0]), ([0.6, 0.7, 0.95, 0.97], [0, 0, 1, 1])]
wrong = []
for make, batches in ((accuracies, answers), (precisions, confidences)):
    found = {}
    for first in (0, 1):
        together, alone = MetricCollection(make()), make()
        for predictions, targets in (batches[first], batches[1 - first]):
            together.update(torch.tensor(predictions), torch.tensor(targets))
            for metric in alone.values():
                metric.update(torch.tensor(predictions), torch.tensor(targets))
        values = {name: (value.item(), alone[name].compute().item()) for name, value in together.compute().items()}
        found[first] = all(abs(one - other) < 1e-6 for one, other in values.values())
        rounded = ", ".join(f"{name} {one:.3f} (alone {other:.3f})" for name, (one, other) in values.items())
        print(f"batch {first + 1} first: {rounded}")
    wrong.append(found == {0: False, 1: True})
sys.exit(not all(wrong))
PY
