"""`coattn extract`: images to region features."""

from __future__ import annotations

import argparse
import sys

from coattn.cli.extractors import KINDS, add_extractor_arguments, build_from_arguments, positive
from coattn.features.extract.images import find_images
from coattn.features.extract.processes import gather, rank_and_world_size
from coattn.features.extract.run import extract
from coattn.features.store.layout import FEATURE_DTYPES

DESCRIPTION = """\
Describe each image by regions, cells of a grid or objects, and keep them in a feature store, the folder OUT.

Broken off, it goes on when the same command is given again. Images that cannot be read are named and left out, and the
exit status is then 1; give the command again when they are repaired. Under torchrun, on one or several machines, the
processes share the images; their number may be another when a broken-off command goes on.

  coattn extract data/easy_vqa/images.json data/easy_vqa/features
  coattn extract data/sort_of_clevr/images.json data/sort_of_clevr/features --extractor objects
  coattn extract photos/ features/ --extractor torchvision --model resnet50 --weights default --grid 7x7
  coattn extract photos/ features/ --extractor detector --model fasterrcnn_resnet50_fpn_v2 --weights default
  coattn extract photos/ features/ --extractor transformers --model dinov2-base/ --global
  torchrun --nproc-per-node 4 -m coattn extract photos/ features/ --extractor torchvision --model ... --weights ..."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn extract`."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="images.json (image id to path), image files, or folders of images")
    add("out", metavar="OUT", help="folder to write; an unfinished one is continued")
    add("--id-from", choices=("path", "trailing-number"), default="path", help="how files give image ids (%(default)s)")
    add("--flips", action="store_true", help="store every image a second time, mirrored, as ID#flip")
    add("--dtype", choices=tuple(FEATURE_DTYPES), default="float16", help="of the stored features (%(default)s)")
    add("--batch-size", type=positive, metavar="N", help="images at once (32; a network on a CPU, detector: 4)")
    add("--workers", type=positive, metavar="N", help="threads that read images (one for each core)")
    add_extractor_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Extract; 0 if every image has features, 1 if some could not be read."""
    images = find_images(args.images, id_from=args.id_from)
    rank, world_size = rank_and_world_size()
    report = extract(
        images,
        args.out,
        build_from_arguments(args),
        dtype=args.dtype,
        flips=args.flips,
        batch_size=args.batch_size or KINDS[args.extractor].batch_size,
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
