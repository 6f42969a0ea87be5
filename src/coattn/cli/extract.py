"""`coattn extract`: images to region features."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from coattn.cli.arguments import positive
from coattn.cli.extractors import KINDS, add_extractor_arguments, build_from_arguments
from coattn.features.extract.extractors.base import Reading
from coattn.features.extract.images import find_images
from coattn.features.extract.processes import gather, rank_and_world_size, signs_of_life
from coattn.features.extract.run import Report, extract
from coattn.features.store.layout import FEATURE_DTYPES, Skipped
from coattn.features.store.manifest import Manifest

DESCRIPTION = """\
Describe each image by regions (cells of a grid, or objects), and keep them in a feature store, the folder OUT.

After an interruption run the same command again: it continues. Images that cannot be read are named and left out, and
the exit status is then 1; repair them and run the command again to add them. Under torchrun, on one or several machines
with a common disk, the processes share the images. Their number may change when an interrupted command continues.

  coattn extract data/easy_vqa/images.json data/easy_vqa/features
  coattn extract data/sort_of_clevr/images.json data/sort_of_clevr/features --extractor objects
  coattn extract photos/ features/ --extractor torchvision --model resnet50 --weights default --grid 7x7
  coattn extract photos/ features/ --extractor detector --model fasterrcnn_resnet50_fpn_v2 --weights default
  coattn extract photos/ features/ --extractor transformers --model dinov2-base/ --global
  torchrun --nproc-per-node 4 -m coattn extract photos/ features/ --extractor torchvision --model ... --weights ..."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn extract`."""
    add = parser.add_argument
    add(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="An images.json (image id to path), image files, or folders of images.",
    )
    add("out", metavar="OUT", help="Folder to write. An unfinished one is continued.")
    add(
        "--id-from",
        choices=("path", "trailing-number"),
        default="path",
        help="Rule for the ids of images in folders: path, or the number at its end (default: %(default)s).",
    )
    add("--flips", action="store_true", help="Store every image a second time, mirrored, as ID#flip.")
    add(
        "--dtype",
        choices=tuple(FEATURE_DTYPES),
        default="float16",
        help="Type of the stored features (default: %(default)s).",
    )
    add(
        "--window",
        type=_window,
        metavar="LOW-HIGH",
        help="Values of 16-bit images that become black and white, for example 0-4095 for 12-bit scans. The window is "
        "kept with the features.",
    )
    add(
        "--reduced-decoding",
        action="store_true",
        help="Decode JPEG files at 1/2, 1/4 or 1/8 of their size where that is at least the network's input. This is "
        "faster and changes the features a little; it is kept with them.",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="Number of images at once (default: 32; 4 for a network on a CPU and for a detector).",
    )
    add(
        "--workers", type=positive, metavar="N", help="Number of threads that read images (default: one for each core)."
    )
    add_extractor_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Extract; 0 if every image has features, 1 if some could not be read."""
    images = find_images(args.images, id_from=args.id_from)
    rank, world_size = rank_and_world_size()
    extractor = build_from_arguments(args)
    if args.window is not None or args.reduced_decoding:
        extractor = Reading(extractor, window=args.window, reduced_decoding=args.reduced_decoding)
    with signs_of_life(Path(args.out), rank, shown=world_size > 1) as report_at_end:
        report = extract(
            images,
            args.out,
            extractor,
            dtype=args.dtype,
            flips=args.flips,
            batch_size=args.batch_size or KINDS[args.extractor].batch_size,
            num_workers=args.workers,
            rank=rank,
            world_size=world_size,
            progress=rank == 0,
        )
        if rank > 0:
            report_at_end([report.done, report.found_done, report.skipped, report.dark])
            return 0  # the first process reports on all
    reports = [report]
    if world_size > 1:
        units = Manifest.read(Path(args.out)).units
        found = gather(
            Path(args.out),
            world_size,
            lambda rank: all((Path(args.out) / unit.shard).exists() for unit in units[rank::world_size]),
        )
        reports += [Report(done, before, [Skipped(*entry) for entry in bad], dark) for done, before, bad, dark in found]
    return _tell(args.out, reports)


def _tell(out: str, reports: list[Report]) -> int:
    skipped = [entry for report in reports for entry in report.skipped]
    found_done = sum(report.found_done for report in reports)
    found = f", {found_done} of them before" if found_done else ""
    share = f" (by {len(reports)} processes)" if len(reports) > 1 else ""
    print(f"{out}: {sum(report.done for report in reports)} images{found}, {len(skipped)} skipped{share}")
    if dark := sum(report.dark for report in reports):
        print(
            f"{dark} images use a small part of their 16-bit range and are nearly black in the features; extract them "
            "with --window LOW-HIGH",
            file=sys.stderr,
        )
    if skipped:
        names = ", ".join(repr(entry.image_id) for entry in skipped[:5])
        more = ", ..." if len(skipped) > 5 else ""
        print(f"skipped: {names}{more}; the reasons: coattn inspect {out}", file=sys.stderr)
    return 1 if skipped else 0


def _window(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal() and int(low) < int(high) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a window like 0-4095")
    return int(low), int(high)
