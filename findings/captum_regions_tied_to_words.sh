#!/usr/bin/env bash
# Package:  captum 0.9.0 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: FeatureAblation with feature masks that number the regions 0, 1, 2 and the words 0, 1, 2 ablates six features:
#           the docstring of ShapleyValues says that it groups features across tensors, and that ablation does not.
# Seen:     features of the same number are ablated together across tensors. Word i and region i both get the effect of
#           removing the two at once. No warning is given.
# Matters:  a question word with no effect gets the importance of the region that happens to have its number, and the map of
#           the question looks plausible.
# Remedy:   number the words after the regions. Grouping came with pull request 1497 of captum.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet captum==0.9.0 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys
import warnings

import torch
from captum.attr import FeatureAblation, ShapleyValues

warnings.simplefilter("error")


def score(regions, words):
    """The score of an answer that depends on the regions alone. (batch, 3, 2), (batch, 3) -> (batch,)."""
    return regions.sum((1, 2)) + 0.0 * words.sum(1)


regions, words = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]]), torch.tensor([[7.0, 8.0, 9.0]])
numbers = torch.arange(3)
seen = {}
for name, of_words in {"numbers 0 to 2": numbers[None], "numbers 3 to 5": numbers[None] + 3}.items():
    masks = (numbers[None, :, None], of_words)
    region_effects, word_effects = FeatureAblation(score).attribute((regions, words), feature_mask=masks)
    seen[name] = word_effects[0].tolist()
    print(f"words with the {name}: effects of regions {region_effects[0, :, 0].tolist()}, of words {seen[name]}")
says = "unlike feature ablation" in " ".join(ShapleyValues.attribute.__doc__.split())
print(f"the docstring of ShapleyValues tells ablation apart: {says}")
sys.exit(not (says and seen == {"numbers 0 to 2": [2.0, 4.0, 6.0], "numbers 3 to 5": [0.0, 0.0, 0.0]}))
PY
