#!/usr/bin/env bash
# Package:  transformers 5.24.0 with tokenizers 0.23.3
# Expected: BertTokenizer(vocab_file="vocab.txt") reads the vocabulary, as with transformers 4, or refuses the argument.
# Seen:     the argument is accepted and ignored: the tokenizer knows the five special tokens, and every word is [UNK].
#           BertTokenizer("vocab.txt") and vocab="vocab.txt" read the file. LXMERT, DistilBERT and ELECTRA share this class.
#           With vocab_file and merges_file, RoBERTa's tokenizer drops every word, and each letter is <|endoftext|> for
#           CLIP's. No warning is given, and the docstring of BertTokenizer still speaks of vocab_file. The migration guide
#           to version 5 says that it "cannot be used", for LlamaTokenizer.
# Matters:  code of LXMERT or VisualBERT trains on, with the number of tokens of each question as its only content. The
#           score looks like a poor language model's, not like a fault.
# Remedy:   from_pretrained(folder), or the argument vocab; check that len(tokenizer) is the size of the model's embedding.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.24.0 tokenizers==0.23.3 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import json
import sys
import warnings
from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizer, RobertaTokenizer

warnings.simplefilter("error")
question = "what is the color"
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *question.split()]
Path("vocab.txt").write_text("".join(f"{word}\n" for word in words))
parts = ["<|startoftext|>", "<|endoftext|>", "<unk>", "w", "h", "a", "t", "t</w>", "wh", "wha", "what", "what</w>"]
Path("vocab.json").write_text(json.dumps({part: number for number, part in enumerate(parts)}))
Path("merges.txt").write_text("#version: 0.2\nw h\nwh a\nwha t\nwha t</w>\n")
seen = {"BERT": [BertTokenizer(**{name: "vocab.txt"}).tokenize(question) for name in ("vocab", "vocab_file")]}
for name, maker in {"RoBERTa": RobertaTokenizer, "CLIP": CLIPTokenizer}.items():
    read, ignored = maker(vocab="vocab.json", merges="merges.txt"), maker(vocab_file="vocab.json", merges_file="merges.txt")
    seen[name] = [read.tokenize("what"), ignored.tokenize("what")]
for name, (read, ignored) in seen.items():
    print(f"{name}: with vocab {read}, with vocab_file {ignored}")
bert = [question.split(), ["[UNK]"] * 4]
sys.exit(seen != {"BERT": bert, "RoBERTa": [["what"], []], "CLIP": [["what</w>"], ["<|endoftext|>"] * 4]})
PY
