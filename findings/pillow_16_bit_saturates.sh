#!/usr/bin/env bash
# Package:  Pillow 13.0.0
# Expected: converting a 16-bit grayscale image to 8 bits ("L" or "RGB") scales its values.
# Seen:     values are clipped at 255, so that a 12-bit radiograph becomes a white image with black background.
# Matters:  medical images are 12 or 16 bits, and most pipelines begin with Image.open(path).convert("RGB").
# Remedy:   scale by the real range of the image before converting.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pillow==13.0.0 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import io
import sys

from PIL import Image

radiograph = Image.new("I;16", (4, 1))
for x, value in enumerate([0, 1000, 2000, 4000]):
    radiograph.putpixel((x, 0), value)
file = io.BytesIO()
radiograph.save(file, "PNG")
opened = Image.open(file)
values = [opened.getpixel((x, 0)) for x in range(4)]
gray = [opened.convert("L").getpixel((x, 0)) for x in range(4)]
color = [opened.convert("RGB").getpixel((x, 0))[0] for x in range(4)]
print(f"file {values}, as L {gray}, red channel of RGB {color}")
sys.exit(not (gray == color == [0, 255, 255, 255]))
PY
