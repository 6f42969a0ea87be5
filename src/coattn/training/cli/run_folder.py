"""The folder of a run: its lock, its checkpoints, and how it is removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from coattn.serialization.hub import PREFIX, local_model
from coattn.training.checkpoints import BEST, LAST, read_checkpoint

try:
    import fcntl
except ModuleNotFoundError:  # Windows: folders of runs are not locked
    fcntl = None  # type: ignore[assignment]

_MADE = ("checkpoints", "logs", "model", "predictions", "config.yaml", "hpc_ckpt_*.ckpt")


def is_first_process() -> bool:
    """Whether this is the process that writes the files of the run."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


def checkpoint_to_resume(root: Path, *, resume: bool, overwrite: bool, ckpt_path: str | None) -> Path | None:
    """The checkpoint from which `fit` resumes; None for a new run.

    Raises:
        ValueError: options that contradict each other, or the folder holds a run that no option names.
        FileNotFoundError: there is no such checkpoint.
    """
    folder = root / "checkpoints"
    if overwrite and (resume or ckpt_path):
        raise ValueError("--overwrite starts anew: leave out --resume and --ckpt_path")
    present = [folder / name for name in (LAST, BEST) if (folder / name).exists()]
    present += root.glob("hpc_ckpt_*.ckpt")  # under SLURM, Lightning would resume from such a file by itself
    if resume and ckpt_path is None:
        return present[0] if present else None
    checkpoint = None if ckpt_path is None else named_checkpoint(root, ckpt_path)
    if checkpoint is not None and checkpoint.is_dir():
        raise ValueError(f"{checkpoint}: training resumes from a checkpoint file (.ckpt), not from a model directory")
    if checkpoint is not None:
        read_checkpoint(checkpoint, complete=True)
    continues = checkpoint is not None and checkpoint.resolve().parent == folder.resolve()
    # Only the first process looks: the run has begun when the others start.
    if present and not continues and not overwrite and is_first_process():
        raise ValueError(
            f"{root} already holds a run ({present[0]}); resume it (--resume), replace it (--overwrite), "
            "or give another folder (--trainer.default_root_dir)"
        )
    return checkpoint


def checkpoint_to_use(root: Path, ckpt_path: str | None, *, allow_download: bool = False) -> Path:
    """The checkpoint file or model directory that `validate`, `test` and `predict` use: the best one by default.

    Args:
        root: the folder of the run.
        ckpt_path: "best", "last", a path, or the name of a model on the Hub.
        allow_download: see `local_model`.

    Raises:
        ValueError: a damaged checkpoint, or as `local_model` says.
        FileNotFoundError: there is no such checkpoint.
    """
    if ckpt_path is None:
        return best if (best := root / "checkpoints" / BEST).exists() else named_checkpoint(root, "last")
    if ckpt_path.startswith(PREFIX):
        return local_model(ckpt_path, allow_download=allow_download)
    path = named_checkpoint(root, ckpt_path)
    if path.is_file():
        read_checkpoint(path)
    return path


def named_checkpoint(root: Path, name: str) -> Path:
    """The path of "best", "last", or a given path.

    Raises:
        FileNotFoundError: it does not exist.
    """
    path = root / "checkpoints" / f"{name}.ckpt" if name in ("best", "last") else Path(name)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint; train first (coattn fit), or give --ckpt_path")
    return path


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lock the folder of a run; the lock ends with the process. A folder that stays empty is removed.

    Raises:
        ValueError: another run holds the lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"{root} is in use by another run; give another folder (--trainer.default_root_dir)") from None
    except OSError:  # a network file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)
        if not any(root.iterdir()):
            root.rmdir()


def remove_run(root: Path) -> None:
    """Remove what a run makes, and nothing else in its folder."""
    for path in [path for name in _MADE for path in root.glob(name)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
