#!/usr/bin/env bash
# Package:  lightning 2.6.6 with jsonargparse 4.53.0 and torch 2.13.0 (200 MB for a CPU build, several GB with CUDA)
# Expected: `validate --ckpt_path=x.ckpt --model.num_beams=5` of LightningCLI builds the model with five beams: the command line
#           goes before everything else.
# Seen:     since 2.5.5 the hyperparameters that a checkpoint keeps (save_hyperparameters) replace those of the command line and
#           of --config: the model has the one beam of its training. 2.5.4 does not read them. No warning is given.
# Matters:  scores for several beams, thresholds or answer lengths are one score, repeated, and fine-tuning from a checkpoint
#           with another dropout or loss trains with the old ones. Pull request 21116 introduced it; 21455 would mend it.
# Remedy:   a subclass of LightningCLI whose _parse_ckpt_path does nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >beams.py <<'PY'
import logging
import warnings

warnings.simplefilter("ignore")
from lightning.pytorch.cli import LightningCLI  # noqa: E402
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel  # noqa: E402

logging.disable(logging.WARNING)


class Model(BoringModel):
    def __init__(self, num_beams: int = 1):
        super().__init__()
        self.save_hyperparameters()


def run(*arguments):
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    trainer = [f"--trainer.{name}=false" for name in quiet]
    args = [*arguments, *trainer, "--trainer.accelerator=cpu", "--trainer.fast_dev_run=true"]
    return LightningCLI(Model, BoringDataModule, args=args, save_config_callback=None)


run("fit").trainer.save_checkpoint("x.ckpt")
model = run("validate", "--ckpt_path=x.ckpt", "--model.num_beams=5").model
print("num_beams=5 becomes", model.hparams.num_beams)
PY
python3 -m venv venv
venv/bin/pip install --quiet lightning==2.6.6 'jsonargparse[signatures]==4.53.0' torch==2.13.0 numpy==2.4.6 \
  2>pip.log || { cat pip.log; exit 2; }
venv/bin/python beams.py 2>errors | tee seen || { cat errors; exit 2; }
grep -q "^num_beams=5 becomes 1$" seen
