#!/usr/bin/env bash
# Package:  lightning 2.6.6 with torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: self.log(..., batch_size=n, sync_dist=True) logs the mean over all samples.
# Seen:     the mean number of samples per process is cut to an integer. With two samples on one process and one on the
#           other, 3 / 2 becomes 1, and an accuracy of 100 % is logged as 150 %.
# Matters:  the last batches of an evaluation are rarely equal on all processes, and the wrong value chooses the best
#           checkpoint. Reported as issue 21859 of Lightning.
# Remedy:   log sums and counts, and divide them yourself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet lightning==2.6.6 torch==2.13.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
cat >two_processes.py <<'PY'
import logging
import warnings

import lightning
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class AlwaysRight(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def val_dataloader(self):
        num_samples = 2 if self.global_rank == 0 else 1
        return torch.utils.data.DataLoader(torch.zeros(num_samples, 1), batch_size=num_samples)

    def validation_step(self, batch, batch_idx):
        self.log("accuracy", torch.tensor(1.0), batch_size=len(batch), sync_dist=True)


trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, use_distributed_sampler=False,
)
(found,) = trainer.validate(AlwaysRight(), verbose=False)
if trainer.is_global_zero:
    print(f"three right answers of three: accuracy {found['accuracy']}")
PY
venv/bin/python two_processes.py 2>errors | tee seen || { cat errors; exit 2; }
grep -q "accuracy 1.5" seen
