#!/usr/bin/env bash
# Package:  lightning 2.6.6, compared with 2.5.5, with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: ModelCheckpoint(monitor=..., save_last=True) keeps the state of the last validation in last.ckpt, beside the best.
# Seen:     since 2.6, last.ckpt is written only in steps in which a best checkpoint is written. If the score falls after the
#           first of four epochs, last.ckpt holds epoch 0; with 2.5.5 it holds epoch 3. The docstring of save_last
#           speaks of a copy at each saving of a checkpoint in both versions.
# Matters:  an interrupted training that resumes with ckpt_path="last" repeats all epochs since the best one, and its curve
#           looks as if nothing had been lost. openclimatefix/pvnet met it in its pull request 544.
# Remedy:   a second ModelCheckpoint(monitor=None, filename="last", enable_version_counter=False).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >train.py <<'PY'
import logging
import warnings

import lightning
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Falling(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("accuracy", torch.tensor(0.9 - 0.1 * self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


version = lightning.__version__
saved = lightning.pytorch.callbacks.ModelCheckpoint(version, monitor="accuracy", mode="max", save_last=True)
trainer = lightning.Trainer(
    accelerator="cpu", max_epochs=4, callbacks=[saved], logger=False, enable_progress_bar=False, enable_model_summary=False
)
batches = torch.utils.data.DataLoader(torch.randn(8, 2), batch_size=2)
trainer.fit(Falling(), batches, batches)
epoch = torch.load(f"{version}/last.ckpt", weights_only=False)["epoch"]
print(f"lightning {version}: after epochs 0 to 3, of which epoch 0 was the best, last.ckpt holds epoch {epoch}")
PY
python3 -m venv venv
venv/bin/pip install --quiet lightning==2.6.6 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python train.py 2>errors | tee seen || { cat errors; exit 2; }
venv/bin/pip install --quiet lightning==2.5.5 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python train.py 2>errors | tee -a seen || { cat errors; exit 2; }
grep -q "2.6.6: .* holds epoch 0" seen
grep -q "2.5.5: .* holds epoch 3" seen
