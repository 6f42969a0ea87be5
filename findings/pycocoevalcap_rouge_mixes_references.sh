#!/usr/bin/env bash
# Package:  pycocoevalcap 1.2 (100 MB), the scores of the COCO captions, with numpy 2.4.6
# Expected: ROUGE-L of a caption with several references is its score with the best of them, and 1 only if it is one of them.
#           The docstring names Lin and Hovey (2004); Lin (2004) takes the best reference.
# Seen:     precision is the best over the references, and recall is the best over the references, each from another one. A
#           fragment of a long reference that contains a short reference scores 1.
# Matters:  "a man in a", where a decoder has stopped too early, beats a right caption, and one more short reference raises
#           the scores. Values of torchmetrics or rouge-score are not comparable. The formulas of the COCO caption paper
#           (arXiv 1504.00325) have the two maxima; neither the README nor the docstrings mention them.
# Remedy:   max(Rouge().calc_score([caption], [reference]) for reference in references).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-deps pycocoevalcap==1.2 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys

from pycocoevalcap.rouge.rouge import Rouge

references = ["a man in a red shirt rides a horse", "a man", "somebody on horseback"]
rouge = Rouge()
scores = {}
for caption in ("a man in a", "a man in a red shirt rides a brown horse"):
    alone = [rouge.calc_score([caption], [reference]) for reference in references]
    scores[caption], _ = rouge.compute_score({0: references}, {0: [caption]})
    print(f"{caption!r}: {scores[caption]:.3f} with all references, at most {max(alone):.3f} with one of them")
fragment, sentence = scores
best = [max(rouge.calc_score([caption], [reference]) for reference in references) for caption in scores]
sys.exit(not (scores[fragment] == 1 > scores[sentence] and best[0] < best[1] < 1))
PY
