#!/usr/bin/env bash
# Package:  jsonargparse 4.53.0 (the parser of Lightning's command line)
# Expected: a value that a YAML file sets and that a link computes is refused, as it is on the command line.
# Seen:     on the command line it is refused; in a YAML file the value is replaced without a word.
# Matters:  a configuration that fixes model.num_answers trains with another number, and its file says something else.
# Remedy:   compare the two yourself after instantiation.
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


class Data:
    def __init__(self, num_answers: int = 3):
        self.num_answers = num_answers


class Model:
    def __init__(self, num_answers: int = 1):
        self.num_answers = num_answers


def parse(*arguments):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Data, "data")
    parser.add_class_arguments(Model, "model")
    parser.link_arguments("data.num_answers", "model.num_answers", apply_on="instantiate")
    return parser.instantiate(parser.parse_args(list(arguments))).model.num_answers


try:
    refused = not parse("--data.num_answers=5", "--model.num_answers=7")
except jsonargparse.ArgumentError as error:
    refused = True
    print(f"command line: {error}")
Path("config.yaml").write_text("data: {num_answers: 5}\nmodel: {num_answers: 7}\n")
replaced = parse("--config=config.yaml")
print(f"YAML file: model.num_answers is 7 in the file and {replaced} in the model")
sys.exit(not (refused and replaced == 5))
PY
