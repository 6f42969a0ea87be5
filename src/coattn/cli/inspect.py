"""`coattn inspect`: describe a feature store, a model or a prepared data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from coattn._internal.files import atomic_path, decode_utf8
from coattn.cli.arguments import keep_inputs
from coattn.features.store.inspect import describe_store
from coattn.features.store.manifest import MANIFEST
from coattn.features.store.reader import FeatureStore
from coattn.serialization.files import CONFIG

DESCRIPTION = """\
Show what a feature store, a model directory or the folder of a prepared data set holds. Of a store this names the
extractor, and all rows are searched for values that should not occur. With --image and --picture the regions of one of
its images are drawn instead.

  coattn inspect features/
  coattn inspect runs/easy_vqa/model --verify
  coattn inspect data/easy_vqa
  coattn inspect features.h5 --json --per-dimension
  coattn inspect features/ --image 84002 --picture boxes.png --image-file COCO_train2014_000000084002.jpg"""
_BAR = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `coattn inspect`."""
    parser.add_argument(
        "path", metavar="PATH", help="A feature store, a model directory, or the folder of a prepared data set."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON instead of text.")
    parser.add_argument("--per-dimension", action="store_true", help="Add statistics of every dimension (with --json).")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="Compare the files of a store or model that have checksums, and search for the images of a data set. "
        "Damaged and missing files are named, and the exit status is then 1.",
    )
    drawing = parser.add_argument_group("a picture of one image's regions")
    add = drawing.add_argument
    add("--image", metavar="ID", help="Id of the image.")
    add("--picture", metavar="OUT.png", help="File to write.")
    add("--image-file", metavar="PHOTO", help="Photo to draw on (default: an empty sheet).")
    add("--names", metavar="FILE", help="Text file with the names of the labels, one a line, beginning with label 0.")
    add("--attribute-names", metavar="FILE", help="The same for attributes.")


def run(args: argparse.Namespace) -> int:
    """Describe, or draw."""
    if args.per_dimension and not args.json:
        raise ValueError("--per-dimension needs --json")
    drawing = {name: getattr(args, name) for name in ("image", "picture", "image_file", "names", "attribute_names")}
    if any(value is not None for value in drawing.values()):
        if args.image is None or args.picture is None:
            raise ValueError("a picture needs --image ID and --picture OUT.png")
        return _draw(args)
    found = _described(Path(args.path), args)
    if args.per_dimension and found["kind"] != "feature store":
        raise ValueError(f"{args.path}: --per-dimension is for feature stores, and this is a {found['kind']}")
    faulty = found["checksums"]["damaged"] if "checksums" in found else found.get("missing_images", {"number": 0})
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    elif found["kind"] == "prepared data set":
        from coattn.datasets.report import format_report

        print(format_report(found))
        if args.verify:
            print(f"missing images: {_count(faulty)}")
    else:
        bars = {"images_by_rows": _bars(found["images_by_rows"])} if "images_by_rows" in found else {}
        print(_as_text({**found, **bars}))
    return 1 if faulty["number"] else 0


def _described(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Describe the store, the model or the data set at `path`; the files in it say which it is."""
    if (path / CONFIG).is_file():
        from coattn.serialization.inspect import describe_model

        return describe_model(path, verify=args.verify)
    if (path / "report.json").is_file():
        from coattn.datasets.inspect import describe_dataset

        return describe_dataset(path, verify=args.verify)
    if path.is_dir() and not (path / MANIFEST).is_file():
        raise ValueError(
            f"{path}: not a feature store, model directory or prepared data set: it has no {MANIFEST}, {CONFIG} or "
            "report.json"
        )
    return describe_store(path, per_dimension=args.per_dimension, verify=args.verify)


def _draw(args: argparse.Namespace) -> int:
    out = Path(args.picture)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--picture {out}: the name must end in .png")
    keep_inputs("--picture", out, [args.image_file])
    store = FeatureStore(args.path)
    store.index(args.image)
    from coattn.features.extract.images import load_image
    from coattn.visualization.regions import draw_regions

    picture = draw_regions(
        store,
        args.image,
        photo=None if args.image_file is None else load_image(Path(args.image_file)),
        names=_names(args.names),
        attribute_names=_names(args.attribute_names),
    )
    with atomic_path(out) as partial:
        picture.save(partial, format="PNG")
    print(f"{out}: the regions of image {args.image}")
    return 0


def _names(path: str | None) -> list[str] | None:
    """Names from a file, one a line."""
    if path is None:
        return None
    return [line.strip() for line in decode_utf8(Path(path).read_bytes(), path).splitlines()]


def _bars(counts: dict[str, int]) -> dict[str, str]:
    """Show a histogram as text: a number and a bar for each line."""
    most = max(counts.values(), default=1)
    width = len(str(most))
    return {name: f"{count:>{width}}  {'#' * -(-_BAR * count // most)}".rstrip() for name, count in counts.items()}


def _as_text(found: dict[str, Any], indent: str = "") -> str:
    """Show one value a line, nested values indented below their name."""
    lines = []
    width = max(map(len, found), default=0)
    for name, value in found.items():
        label = name if "." in name else name.replace("_", " ")  # a file keeps its name
        if isinstance(value, dict) and value.keys() == {"number", "first"}:
            lines.append(f"{indent}{label:<{width}}  {_count(value)}")
        elif isinstance(value, dict) and value:
            lines += [f"{indent}{label}", _as_text(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{label}", *(f"{indent}  {', '.join(map(str, entry.values()))}" for entry in value)]
        else:
            lines.append(f"{indent}{label:<{width}}  {_plain(value)}")
    return "\n".join(lines)


def _count(found: dict[str, Any]) -> str:
    """A number of things, and the first of them."""
    return f"{found['number']} (first {_plain(found['first'])})" if found["first"] else str(found["number"])


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(_plain, value)) or "none"
    return "none" if value is None else str(value)
