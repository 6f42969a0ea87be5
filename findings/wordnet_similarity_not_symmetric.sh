#!/usr/bin/env bash
# Package:  nltk 3.10.4 with WordNet 3.0 (Debian's package wordnet-base 3.0, fetched by apt-get download)
# Expected: the Wu-Palmer similarity of two words does not depend on their order.
# Seen:     toothbrush and electric_toothbrush are 18/19 = 0.947 alike, electric_toothbrush and toothbrush 16/19 = 0.842;
#           likewise curtain and shower_curtain. The two values lie on both sides of 0.9, the threshold of WUPS.
# Matters:  all four are answers of DAQUAR, so WUPS at 0.9 depends on which word is given first: 0.947 or 0.084.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet nltk==3.10.4 2>pip.log || { cat pip.log; exit 2; }
apt-get download wordnet-base=1:3.0-37 >apt.log 2>&1 || { cat apt.log; exit 2; }
dpkg-deb -x wordnet-base_*.deb debian
mkdir -p corpora
mv debian/usr/share/wordnet corpora/wordnet
venv/bin/python -W ignore - <<'PY'
import sys
from pathlib import Path

import nltk
from nltk.corpus.reader.wordnet import WordNetCorpusReader

folder = Path("corpora/wordnet").absolute()
# nltk also opens these two files, which Debian leaves out and the similarity does not need.
(folder / "lexnames").write_text("".join(f"{number:02d}\tname{number}\t1\n" for number in range(45)))
(folder / "index.sense").touch()
nltk.data.path[:] = [str(Path.cwd())]
wordnet = WordNetCorpusReader(nltk.data.find("corpora/wordnet"), omw_reader=None)
found = []
for names in (("toothbrush", "electric_toothbrush"), ("curtain", "shower_curtain")):
    first, second = (wordnet.synset(f"{name}.n.01") for name in names)
    found.append([round(value, 3) for value in (first.wup_similarity(second), second.wup_similarity(first))])
    print(f"{names[0]}, {names[1]}: {found[-1][0]}; the other way round: {found[-1][1]}")
sys.exit(found != [[0.947, 0.842]] * 2)
PY
