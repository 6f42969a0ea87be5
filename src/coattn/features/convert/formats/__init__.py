"""Other people's feature files. A format is a name and how a file or folder of it is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from coattn.features.convert.formats.base import FeatureSource, ImageRegions, SourceImage

__all__ = ["FORMATS", "FeatureSource", "ImageRegions", "SourceImage", "open_source"]

# What each format is, in a line, and the class that reads it.
FORMATS = {
    "bottom-up-tsv": ("bottom-up attention's TSV, in either order of columns", "tsv.BottomUpTsv"),
    "openvqa-npz": ("openvqa's folders of .npz, of VQA, GQA or CLEVR", "npz.NpzFolder"),
    "py-bottom-up-npz": ("folders of .npz from bottom-up-attention.pytorch", "npz.NpzFolder"),
    "hengyuan-hdf5": ("hengyuan-hu's or BAN's .hdf5, with its _imgid2idx.pkl beside it", "hdf5.Hengyuan"),
    "dcn-hdf5": ("DCN's .h5, with its .pt beside it", "hdf5.DenseCoAttention"),
    "mmf-lmdb": ("MMF's LMDB (needs the package lmdb)", "mmf.MmfLmdb"),
    "mmf-npy": ("MMF's folders of .npy and _info.npy", "mmf.MmfNpy"),
    "grid-feats-pth": ("grid-feats-vqa's folders of .pth", "grid.GridFeats"),
}


def open_source(kind: str, path: Path, *, progress: bool = False) -> FeatureSource:
    """Open a file or folder of the format `kind` and list its images.

    Raises:
        ValueError: it is not of this format, or holds no image.
        OSError: it cannot be read.
        ModuleNotFoundError: a package that the format needs is not installed.
    """
    module, _, name = FORMATS[kind][1].partition(".")
    opened: Callable[..., FeatureSource] = getattr(import_module(f"coattn.features.convert.formats.{module}"), name)
    return opened(path, progress=progress)
