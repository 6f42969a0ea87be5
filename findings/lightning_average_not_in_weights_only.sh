#!/usr/bin/env bash
# Package:  lightning 2.6.6 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: with EMAWeightAveraging, a checkpoint holds the averaged weights, which validation has scored.
# Seen:     a full checkpoint does: state_dict is the average. With ModelCheckpoint(save_weights_only=True) state_dict is the
#           weights of the last step, which were never validated, and the average is nowhere in the file. No warning is given.
# Matters:  the best checkpoint is chosen by the score of other weights than it holds, and the published model is worse than
#           its log says. Files of both kinds have the same keys, so nothing tells them apart.
# Remedy:   save full checkpoints, and take their state_dict.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet lightning==2.6.6 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import logging
import sys
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def training_step(self, batch, batch_idx):
        return self.weight.square()

    def validation_step(self, batch, batch_idx):
        self.validated = self.weight.item()
        self.log("score", self.weight)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


batches = torch.utils.data.DataLoader(torch.zeros(4, 1))
same = {}
for weights_only in (False, True):
    saved = ModelCheckpoint(f"weights_only_{weights_only}", monitor="score", save_weights_only=weights_only)
    callbacks = [EMAWeightAveraging(decay=0.9), saved]
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=callbacks, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )
    model = Model()
    trainer.fit(model, batches, batches)
    kept = torch.load(saved.best_model_path, weights_only=False)["state_dict"]["weight"].item()
    same[weights_only] = abs(kept - model.validated) < 1e-6
    print(f"save_weights_only={weights_only}: validated {model.validated:.4f}, saved {kept:.4f}")
sys.exit(same != {False: True, True: False})
PY
