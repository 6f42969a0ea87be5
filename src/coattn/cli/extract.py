"""`coattn extract`: images to region features."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from coattn.features.extract import extract
from coattn.features.extractors.descriptor import Descriptor
from coattn.features.extractors.objects import Objects
from coattn.features.images import find_images
from coattn.features.layout import FEATURE_DTYPES
from coattn.features.processes import gather, rank_and_world_size
from coattn.features.regions import Extractor
from coattn.predictor import find_device

DESCRIPTION = """\
Describe each image by regions, cells of a grid or objects, and keep them in a feature store, the folder OUT.

Broken off, it goes on when the same command is given again. Images that cannot be read are named and left out, and the
exit status is then 1; give the command again when they are repaired. Under torchrun, on one or several machines, the
processes share the images; their number may be another when a broken-off command goes on.

  coattn extract data/easy_vqa/images.json data/easy_vqa/features
  coattn extract data/sort_of_clevr/images.json data/sort_of_clevr/features --extractor objects
  coattn extract photos/ features/ --extractor torchvision --model resnet50 --weights default --grid 7x7
  torchrun --nproc-per-node 4 -m coattn extract photos/ features/ --extractor torchvision --model ... --weights ..."""

# The options that each extractor knows, by the name of their attribute.
_OPTIONS = {
    "descriptor": ("grid", "size"),
    "objects": ("levels", "min_area", "max_objects", "max_side"),
    "torchvision": ("grid", "size", "model", "weights", "global_region", "tf_same_padding", "device"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn extract`."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="images.json (image id to path), image files, or folders of images")
    add("out", metavar="OUT", help="folder to write; an unfinished one is continued")
    add(
        "--extractor",
        choices=tuple(_OPTIONS),
        default="descriptor",
        help="descriptor: colours and edges in a grid; objects: patches of one colour, for drawn scenes; "
        "torchvision: a network's feature map (%(default)s)",
    )
    add("--grid", type=_pair, metavar="RxC", help="rows x columns (descriptor: 4x4; torchvision: the map as it is)")
    add("--size", type=_pair, metavar="HxW", help="resize to (descriptor: 16 pixels a cell; torchvision: 224x224)")
    add("--id-from", choices=("path", "trailing-number"), default="path", help="how files give image ids (%(default)s)")
    add("--flips", action="store_true", help="store every image a second time, mirrored, as ID#flip")
    add("--dtype", choices=tuple(FEATURE_DTYPES), default="float16", help="of the stored features (%(default)s)")
    add("--batch-size", type=positive, default=32, metavar="N", help="images at once (%(default)s)")
    add("--workers", type=positive, metavar="N", help="threads that read images (one for each core)")
    drawn = parser.add_argument_group("--extractor objects")
    add = drawn.add_argument
    add("--levels", type=positive, metavar="N", help="values per colour channel that are told apart (5)")
    add("--min-area", type=float, metavar="SHARE", help="least area of an object, in parts of the image (0.001)")
    add("--max-objects", type=positive, metavar="N", help="most objects of an image, the largest are kept (32)")
    add("--max-side", type=positive, metavar="PIXELS", help="shrink larger images to this longer side (256)")
    network = parser.add_argument_group("--extractor torchvision")
    add = network.add_argument
    add("--model", metavar="NAME", help="classification network of torchvision, for example resnet50")
    add(
        "--weights",
        metavar="default|none|FILE",
        help="default: download torchvision's; none: random; or .pth, .safetensors",
    )
    add("--global", dest="global_region", action="store_true", default=None, help="add the whole image as last region")
    add("--tf-same-padding", action="store_true", default=None, help="for weights that come from TensorFlow")
    add("--device", help="for example cuda, cpu (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    """Extract; 0 if every image has features, 1 if some could not be read."""
    images = find_images(args.images, id_from=args.id_from)
    rank, world_size = rank_and_world_size()
    report = extract(
        images,
        args.out,
        _build(args),
        dtype=args.dtype,
        flips=args.flips,
        batch_size=args.batch_size,
        num_workers=args.workers,
        rank=rank,
        world_size=world_size,
        progress=rank == 0,
    )
    reports = gather(report)
    if reports is None:
        return 0  # the first process tells of all
    skipped = [entry for report in reports for entry in report.skipped]
    found_done = sum(report.found_done for report in reports)
    found = f", {found_done} of them before" if found_done else ""
    share = f" (by {world_size} processes)" if world_size > 1 else ""
    print(f"{args.out}: {sum(report.done for report in reports)} images{found}, {len(skipped)} skipped{share}")
    if skipped:
        names = ", ".join(repr(entry.image_id) for entry in skipped[:5])
        more = ", ..." if len(skipped) > 5 else ""
        print(f"skipped: {names}{more}; the reasons: coattn inspect {args.out}", file=sys.stderr)
    return 1 if skipped else 0


def _build(args: argparse.Namespace) -> Extractor:
    known = _OPTIONS[args.extractor]
    given = {name: value for names in _OPTIONS.values() for name in names if (value := getattr(args, name)) is not None}
    for name in given:
        if name not in known:
            owners = " or ".join(owner for owner, names in _OPTIONS.items() if name in names)
            option = name.removesuffix("_region").replace("_", "-")
            raise ValueError(f"--{option} needs --extractor {owners}; {args.extractor} has no such setting")
    if args.extractor == "descriptor":
        return Descriptor(args.grid or (4, 4), args.size)
    if args.extractor == "objects":
        return Objects(**given)
    if args.model is None or args.weights is None:
        raise ValueError(
            "--extractor torchvision needs --model NAME and --weights: default (downloads torchvision's), a FILE, "
            "or none (random, for trying out)"
        )
    from coattn.features.extractors.torchvision_grid import TorchvisionGrid

    gpu = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    return TorchvisionGrid(
        args.model,
        weights=args.weights if args.weights in ("default", "none") else Path(args.weights),
        size=args.size or (224, 224),
        grid=args.grid,
        global_region=bool(args.global_region),
        tf_same_padding=bool(args.tf_same_padding),
        device=str(find_device(args.device or gpu)),
    )


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.lower().partition("x")
    if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is not two positive numbers like 4x4")
    return int(first), int(second)


def positive(text: str) -> int:
    """A number of the command line that must be above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
