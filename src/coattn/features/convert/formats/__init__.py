"""Feature files of other projects. A format is a name, a description, and the class that reads it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from coattn.features.convert.formats.base import FeatureSource, ImageRegions, SourceImage

__all__ = ["FORMATS", "FeatureSource", "ImageRegions", "SourceImage", "open_source"]

# Name -> description for `--help`, and module and class.
FORMATS = {
    "bottom-up-tsv": ("TSV of bottom-up attention or LXMERT", "tsv.BottomUpTsv"),
    "vinvl-tsv": ("VinVL's features.tsv, or predictions.tsv with its hw.tsv beside it", "vinvl.VinvlTsv"),
    "openvqa-npz": ("openvqa's folders of .npz, of VQA, GQA or CLEVR", "npz.NpzFolder"),
    "py-bottom-up-npz": ("folders of .npz from bottom-up-attention.pytorch", "npz.NpzFolder"),
    "hengyuan-hdf5": ("hengyuan-hu's or BAN's .hdf5, with its _imgid2idx.pkl beside it", "hdf5.Hengyuan"),
    "dcn-hdf5": ("DCN's .h5, with its .pt beside it", "hdf5.DcnHdf5"),
    "vlt5-hdf5": ("VL-T5's .h5, with a group for each image", "hdf5.VlT5"),
    "gqa-hdf5": ("GQA's own folder of .h5, objects or spatial, with its info JSON", "gqa.GqaHdf5"),
    "clevr-iep-hdf5": ("clevr-iep's .h5 of a split, grids of 1024 x 14 x 14", "grid.ClevrIep"),
    "mmf-lmdb": ("LMDB of MMF or ViLBERT (needs the package lmdb)", "mmf.MmfLmdb"),
    "mmf-npy": ("folders of .npy from MMF or ViLBERT, with or without _info.npy", "mmf.MmfNpy"),
    "grid-feats-pth": ("grid-feats-vqa's folders of .pth", "grid.GridFeats"),
}


def open_source(kind: str, path: Path, *, progress: bool = False) -> FeatureSource:
    """Open a file or folder of the format `kind` and list its images.

    Raises:
        ValueError: it is not of this format, or holds no image.
        OSError: it cannot be read.
        ModuleNotFoundError: a package that the format needs is not installed.
    """
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(2)
        if start in (b"", b"\x1f\x8b"):
            raise ValueError(f"{path}: is {'compressed by gzip; unpack it' if start else 'an empty file'}")
    module, _, name = FORMATS[kind][1].partition(".")
    opened: Callable[..., FeatureSource] = getattr(import_module(f"coattn.features.convert.formats.{module}"), name)
    return opened(path, progress=progress)
