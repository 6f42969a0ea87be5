#!/usr/bin/env bash
# Package:  transformers 5.24.0 with tokenizers 0.23.3
# Expected: save_pretrained writes a tokenizer as it was made, whatever texts it has read.
# Seen:     truncation and padding of the last call are written into tokenizer.json. Read with the package tokenizers, that
#           file cuts every later text to the length of that call. PreTrainedTokenizerFast resets both in each call, so a
#           test that loads the folder with transformers does not show it.
# Matters:  a question model exported for use without transformers reads three tokens of each question if the last call
#           before saving had max_length=3, and answers as well as it can.
# Remedy:   call backend_tokenizer.no_truncation() and no_padding() before saving, or after Tokenizer.from_file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 tokenizers==0.23.3 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

question = "what color is the shape in this picture"
words = ["[UNK]", "[PAD]", *question.split()]
plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", pad_token="[PAD]")
read = {}
for name in ("before", "after"):
    tokenizer.save_pretrained(name)
    saved = Tokenizer.from_file(f"{name}/tokenizer.json")
    read[name] = len(saved.encode(question).ids), len(saved.encode("what").ids)
    again = len(PreTrainedTokenizerFast.from_pretrained(name)(question)["input_ids"])
    print(f"saved {name} a call with max_length=3: tokenizers reads {read[name]} tokens of 8 and of 1, transformers {again}")
    tokenizer(question, truncation=True, max_length=3, padding="max_length")
sys.exit(read != {"before": (8, 1), "after": (3, 3)})
PY
