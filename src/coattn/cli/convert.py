"""`coattn convert`: feature stores from one form into another, and published checkpoints into model directories."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from coattn.features.convert.formats import FORMATS
from coattn.features.store.layout import FEATURE_DTYPES

DESCRIPTION = """\
merge: turn a folder of shards, or several stores of the same extractor, into one file.

  coattn convert merge features/ features.h5
  coattn convert merge train_features/ val_features/ features.h5

A format of features: convert feature files of another project into a feature store, the folder OUT. After an
interruption run the same command again: it continues. Records that cannot be used are named and left out, and the exit
status is then 1. Boxes and image sizes that a format does not keep stay unknown.

  coattn convert bottom-up-tsv trainval_36.tsv features/
  coattn convert openvqa-npz train2014/ val2014/ features/ --dtype int8

A project's name: a checkpoint that its authors released, to a model directory. Their question files, in the order in
which the project reads them, replace a dictionary of words that it did not release.

  coattn convert openvqa epoch13.pkl --model mcan_small --config mcan_small.yml --answers answer_dict.json \\
      --questions train.json val.json test.json vg.json models/mcan
  coattn convert mcan-vqa epoch13.pkl --config small_model.yml --answers answer_dict.json --tokens token_dict.json \\
      models/mcan
  coattn convert dcn model.pt --answers idx2ans.json --vectors glove.840B.300d.txt --questions train.json val.json \\
      models/dcn
  coattn convert hengyuan model.pth --answers trainval_label2ans.json \\
      --questions train.json val.json test.json test-dev.json models/butd"""
PROJECTS = ("openvqa", "mcan-vqa", "dcn", "hengyuan")
OTHER_NAMES = {"DCN": "dcn", "hengyuan-hu": "hengyuan"}
WITH_MODELS = ("openvqa",)
WITH_VECTORS = ("dcn",)
WITHOUT_SETTINGS = ("hengyuan",)
FEATURE_NAMES = {
    "bottom-up-tsv": ("bottom-up", "tsv"),
    "grid-feats-pth": ("grid-feats",),
    "mmf-lmdb": ("vilbert-lmdb",),
    "mmf-npy": ("vilbert-npy",),
}
FLAGS = ("-h", "--help", "--repaired")  # the options without a value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn convert`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    merging = kinds.add_parser(
        "merge", help="One file from a folder of shards, or from several stores.", allow_abbrev=False
    )
    merging.add_argument("stores", nargs="+", metavar="STORE", help="Folders of shards, or files.")
    merging.add_argument("out", metavar="OUT.h5", help="File to write.")
    for name, (what, _) in FORMATS.items():
        features = kinds.add_parser(name, aliases=FEATURE_NAMES.get(name, ()), help=what, allow_abbrev=False)
        features.set_defaults(kind=name)
        _add_features(features)
    for project in PROJECTS:
        aliases = [other for other, name in OTHER_NAMES.items() if name == project]
        converting = kinds.add_parser(project, aliases=aliases, help=f"a checkpoint of {project}", allow_abbrev=False)
        _add_checkpoint(converting, project)


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="Files or folders, in the order of the store.")
    parser.add_argument("out", metavar="OUT", help="Folder to write. An unfinished one is continued.")
    parser.add_argument(
        "--dtype",
        choices=tuple(FEATURE_DTYPES),
        default="float16",
        help="Type of the features (default: %(default)s).",
    )
    parser.add_argument(
        "--ids",
        default="auto",
        metavar="auto|name|trailing-number|TEXT",
        help="Rule for image ids. auto takes the number of COCO's file names, such as COCO_train2014_000000458752, and "
        "other names unchanged. name takes all names unchanged. trailing-number takes the number at the end of a name. "
        "A text with {} or {:06d}, such as CLEVR_val_{:06d}, is filled with that number. (Default: %(default)s.)",
    )
    parser.add_argument(
        "--extractor",
        metavar="NAME",
        help="Name of the extractor (default: as the format and its arrays imply).",
    )
    parser.add_argument(
        "--clip-boxes",
        action="store_true",
        help="Cut boxes that leave their image by more than a pixel.",
    )


def _add_checkpoint(parser: argparse.ArgumentParser, project: str) -> None:
    # What a project has no option for.
    parser.set_defaults(model=None, config=None, vectors=None, questions=(), tokens=None, dataset=None)
    parser.add_argument("checkpoint", metavar="CKPT", help="The released checkpoint file.")
    if project in WITH_MODELS:
        parser.add_argument(
            "--model", required=True, metavar="NAME", help="The model of the project: mcan, butd, ban, ..."
        )
    if project in WITH_VECTORS:
        parser.add_argument("--config", metavar="CFG", help="Its settings, JSON (default: those in the checkpoint).")
    elif project not in WITHOUT_SETTINGS:
        parser.add_argument(
            "--config", required=True, metavar="CFG", help="Its settings: the YAML of the project, or JSON."
        )
    parser.add_argument("--answers", required=True, metavar="FILE", help="Its answers by number (answer_dict.json).")
    if project in WITH_VECTORS:
        parser.add_argument("--vectors", required=True, metavar="FILE", help="Its word vectors, a text file of GloVe.")
        parser.add_argument(
            "--questions",
            nargs="+",
            required=True,
            metavar="FILE",
            help="Question files with the words that the model shall know.",
        )
    else:
        words = parser.add_mutually_exclusive_group(required=True)
        words.add_argument("--tokens", metavar="FILE", help="Its words by id (token_dict.json).")
        words.add_argument(
            "--questions",
            nargs="+",
            metavar="FILE",
            help="Its question files in its order, to collect the words again.",
        )
    if project in WITH_MODELS:
        parser.add_argument(
            "--dataset", help="The data set: vqa, gqa or clevr (default: by the settings or the weights)."
        )
    parser.add_argument(
        "--repaired", action="store_true", help="Mask padding everywhere, unlike the original, which shows it."
    )
    parser.add_argument("out", metavar="OUT_DIR", help="Model directory to write.")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments, also those with OUT_DIR right behind `--questions FILES...`."""
    return parser.parse_args(separated(argv))


def separated(argv: Sequence[str]) -> list[str]:
    """The arguments with `--` and OUT_DIR at the end where `--questions FILES...` would read it as one of its files."""
    places = [index for index, word in enumerate(argv) if word == "--questions"]
    if not places or "--" in argv:
        return list(argv)
    first = places[-1] + 1
    end = next((index for index in range(first, len(argv)) if argv[index].startswith("-")), len(argv))
    others, takes_value = [], False
    for word in [*argv[: first - 1], *argv[end:]]:
        if not takes_value and not word.startswith("-"):
            others.append(word)
        takes_value = word.startswith("--") and word not in FLAGS and "=" not in word
    # Of KIND, CKPT and OUT_DIR the last is among the files, and there is one before it.
    if len(others) < 3 and end > first + 1:
        return [*argv[: end - 1], *argv[end:], "--", argv[end - 1]]
    return list(argv)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what came out."""
    if args.kind == "merge":
        from coattn.features.store.merge import merge

        store = merge(args.stores, args.out)
        print(f"{args.out}: {len(store)} images, {store.lengths.sum()} rows of {store.dim}, {store.dtype}")
        return 0
    if args.kind in FORMATS:
        return _convert_features(args)
    from coattn.weights.convert import convert_checkpoint

    model = convert_checkpoint(
        OTHER_NAMES.get(args.kind, args.kind),
        args.checkpoint,
        args.out,
        answers=args.answers,
        config=args.config,
        tokens=args.tokens,
        questions=args.questions,
        vectors=args.vectors,
        model_name=args.model,
        dataset=args.dataset,
        repaired=args.repaired,
    )
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.out}: {num_parameters:,} parameters, {model.head.num_answers} answers")
    return 0


def _convert_features(args: argparse.Namespace) -> int:
    """Convert features; 0 if every record was used, 1 if some could not be."""
    from coattn.features.convert.run import convert

    did = convert(
        args.kind,
        args.sources,
        args.out,
        dtype=args.dtype,
        ids=args.ids,
        extractor=args.extractor,
        clip_boxes=args.clip_boxes,
    )
    counts = {
        "of them before": did.found_done,
        "repeated": did.repeated,
        "skipped": len(did.skipped),
        "boxes cut at the border of their image": did.cut_boxes,
    }
    more = "".join(f", {count} {what}" for what, count in counts.items() if count)
    print(f"{args.out}: {did.done} images{more}")
    if did.skipped:
        print(f"skipped: the reasons are above, and in coattn inspect {args.out}", file=sys.stderr)
    return 1 if did.skipped else 0
