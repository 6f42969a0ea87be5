#!/usr/bin/env bash
# Package:  jsonargparse 4.53.0 (the parser of Lightning's command line)
# Expected: a YAML file with weights of answers for an argument of type dict[str, float] gives keys of type str, or is refused,
#           as a list [yes, no] is refused for list[str].
# Seen:     the values are checked and the keys are not. YAML reads yes, no and 1 as True, False and 1, which stay so, and since
#           True equals 1 the answers "yes" and "1" become one entry, with the later weight. `--weights.yes=2` on the command
#           line gives the key "yes". No warning is given.
# Matters:  these are the most frequent answers of VQA. weights.get("yes", 1.0) finds nothing, and all weights are the default.
# Remedy:   quotation marks around each key of such a file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet jsonargparse==4.53.0 pyyaml==6.0.4 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys
from pathlib import Path

import jsonargparse

parser = jsonargparse.ArgumentParser(exit_on_error=False)
parser.add_argument("--config", action="config")
parser.add_argument("--answers", type=list[str])
parser.add_argument("--weights", type=dict[str, float])

Path("answers.yaml").write_text("answers: [yes, no]\n")
try:
    refused = not parser.parse_args(["--config=answers.yaml"])
except jsonargparse.ArgumentError:
    refused = True
print("list[str] with [yes, no] is refused:", refused)
Path("weights.yaml").write_text("weights: {yes: 2, no: 3, red: 4, 1: 5, 0: 6}\n")
weights = parser.parse_args(["--config=weights.yaml"]).weights
print("dict[str, float] with {yes: 2, no: 3, red: 4, 1: 5, 0: 6} becomes", weights)
typed = parser.parse_args(["--weights.yes=2"]).weights
print("on the command line:", typed)
sys.exit(not (refused and weights == {True: 5, False: 6, "red": 4} and "yes" not in weights and typed == {"yes": 2}))
PY
