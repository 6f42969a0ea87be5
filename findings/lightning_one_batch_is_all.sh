#!/usr/bin/env bash
# Package:  lightning 2.6.6 with jsonargparse 4.53.0 and torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: `--trainer.limit_val_batches=1` on a command line of LightningCLI means one batch, as the Trainer documents
#           for whole numbers (1.0 is all of them).
# Seen:     it becomes 1.0: "100% of the batches will be used". The source says Optional[Union[int, float]], but the
#           annotation is Union[float, int, None] at run time: Python 3.11 keeps such types in a cache, to which int and
#           float in another order are equal, so that the Trainer gets the order that another module asked for.
#           jsonargparse takes the first type that fits. Which modules were imported shortly before decides: with
#           torch 2.14.1 and more packages installed the same command uses one batch.
# Matters:  a check on one batch reads the whole split, and limit_predict_batches=1 answers everything.
# Remedy:   sort the types in Trainer.__init__.__annotations__ before the command line is built.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >limit.py <<'PY'
import inspect
import warnings

warnings.simplefilter("ignore")
from lightning.pytorch import Trainer  # noqa: E402
from lightning.pytorch.cli import LightningCLI  # noqa: E402
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel  # noqa: E402

arguments = ["--trainer.limit_val_batches=1", "--trainer.logger=false"]
limit = LightningCLI(BoringModel, BoringDataModule, run=False, args=arguments).trainer.limit_val_batches
print("annotation:", inspect.signature(Trainer.__init__).parameters["limit_val_batches"].annotation)
print("limit_val_batches=1 becomes", limit)
PY
python3 -m venv venv
venv/bin/pip install --quiet lightning==2.6.6 'jsonargparse[signatures]==4.53.0' torch==2.13.0 numpy==2.4.6 \
  2>pip.log || { cat pip.log; exit 2; }
venv/bin/python limit.py 2>errors | tee seen || { cat errors; exit 2; }
grep -q "^limit_val_batches=1 becomes 1.0$" seen
