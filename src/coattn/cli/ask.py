"""`coattn ask`: a trained model answers questions about an image, or a table of them."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coattn._internal.kinds import kind_of
from coattn.cli.arguments import HUB_MODEL, add_allow_download, keep_inputs
from coattn.explain.abstain import DoubtWarning, check_max_risk
from coattn.predictor import Predictor

if TYPE_CHECKING:
    from coattn.datasets.rows import Rows
    from coattn.explain.answers import Answers
    from coattn.explain.maps import Explanation
    from coattn.features.encoded import EncodedImage

DESCRIPTION = """\
Ask a trained model about an image: the best answers with their confidence, the reasons to doubt
them, and a picture of what the best answer depends on.
With --table it answers all rows of a table with the columns image and question."""
EXAMPLE = """\
  coattn ask runs/mine/model kitchen.jpg "what is on the table?" "how many people are there?" --map kitchen.png
  coattn ask runs/mine/model kitchen.jpg "what is on the table?" --map t.png --map-name layers.0.question_to_regions \\
      --head 2 --word table
  coattn ask runs/mine/model 42 "what is on the table?" --features features/val --image images/42.jpg --map 42.png
  coattn ask runs/mine/model --table questions.csv --images photos --out answers.csv"""
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ADDED = ("answer", "confidence", "withheld", "reasons", "unknown_words", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn ask`."""
    parser.epilog = f"examples:\n{EXAMPLE}"
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"The model directory that coattn fit wrote, or {HUB_MODEL}.",
    )
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", help="An image file, or with --features the id of an image."
    )
    parser.add_argument(
        "questions", metavar="QUESTION", nargs="*", help="One question or more, each in quotation marks."
    )
    parser.add_argument("--top-k", type=int, default=5, metavar="N", help="Show this number of answers (default 5).")
    parser.add_argument("--json", action="store_true", help="Print one JSON object per question, one on a line.")
    parser.add_argument("--device", default="cpu", help="Compute on this device: cpu (default), cuda, ..., or auto.")
    add_allow_download(parser)

    doubt = parser.add_argument_group("doubt")
    doubt.add_argument(
        "--max-risk",
        type=float,
        metavar="SHARE",
        help="Withhold answers unless at most this share of them is wrong, for example 0.05. Images unlike those of "
        "training, several unknown words, questions without a known word, and questions longer than those of training "
        "withhold an answer too; without this option they are warnings.",
    )
    doubt.add_argument(
        "--answer-anyway", action="store_true", help="Show the answers that would be withheld, with the reasons."
    )

    picture = parser.add_argument_group("picture of what the answer depends on, or of the attention")
    picture.add_argument("--map", metavar="FILE", type=Path, help=f"Write the picture here ({', '.join(PICTURES)}).")
    picture.add_argument(
        "--method",
        metavar="NAME",
        help="Explain the answer by this method: dependence (default), attention, rollout, shapley or surrogate.",
    )
    picture.add_argument("--map-name", metavar="NAME", help="Show this attention map instead of what is depended on.")
    picture.add_argument("--head", type=_head, metavar="N|mean", help="Show this head of a map that has several.")
    picture.add_argument(
        "--word", type=_word, metavar="WORD|N", help="Show only the attention of this word (or place)."
    )
    picture.add_argument("--region", type=int, metavar="N", help="Show only the attention of this region.")

    store = parser.add_argument_group("images of a feature store")
    store.add_argument(
        "--features", metavar="STORE", type=Path, help="Take the features of the image from this store, by its id."
    )
    store.add_argument(
        "--image", dest="picture", metavar="FILE", type=Path, help="Draw the map of that image on this photo."
    )
    store.add_argument(
        "--allow-other-features", action="store_true", help="Warn instead of refusing features of another extractor."
    )

    table = parser.add_argument_group("a whole table")
    table.add_argument(
        "--table", metavar="IN", type=Path, help="A table with image and question (.csv, .tsv, .json, .jsonl)."
    )
    table.add_argument(
        "--out", metavar="OUT.csv", type=Path, help="Write its columns here, with answer, confidence and error."
    )
    table.add_argument("--images", metavar="DIR", type=Path, help="Folder of the images (default: that of the table).")
    table.add_argument(
        "--column",
        metavar="FIELD=NAME",
        action="append",
        default=[],
        help="Use this column, as in coattn prepare table. Repeatable.",
    )
    table.add_argument("--encoding", default="utf-8", help="Encoding of the table (default utf-8).")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments, also those with options between the image and the questions."""
    return parser.parse_intermixed_args(argv)


def run(args: argparse.Namespace) -> int:
    """Answer; 1 if some rows of a table could not be answered."""
    _check(args)
    if args.table is not None:
        from coattn.datasets.rows import read_rows
        from coattn.datasets.table_columns import find_columns, given_columns

        rows = read_rows(args.table, encoding=args.encoding)
        columns = find_columns(args.table, rows, given_columns(args.column), needed=("image", "question"))
        image, question = columns["image"], columns["question"]
    # On a terminal, doubts are seen beside the answers; a JSON line and a row of a table hold them.
    shown = args.table is not None or args.json or sys.stdout.isatty()
    with _warnings_on_stderr(doubts=not shown):
        predictor = Predictor.load(
            args.model,
            device=args.device,
            features=args.features,
            allow_other_features=args.allow_other_features,
            allow_download=args.allow_download,
        )
        if args.table is not None:
            status = _ask_table(args, predictor, rows, image, question)
        else:
            status = _ask_questions(args, predictor)
    if predictor.safeguards.missing:
        print(f"coattn: note: {predictor.safeguards.missing}", file=sys.stderr)
    return status


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError if the arguments do not belong together."""
    if (args.table is None) != (args.out is None):
        raise ValueError("--table IN and --out OUT.csv go together")
    if args.table is not None and (args.image or args.map):
        raise ValueError("--table answers the rows of a table: leave out IMAGE, QUESTION and --map")
    check_max_risk(args.max_risk, args.answer_anyway)
    if args.table is None and not args.questions:
        raise ValueError("give an image and at least one question in quotation marks, or a --table")
    for given, meant in [(args.model, "a model"), *((question, "a question") for question in args.questions)]:
        if os.path.isfile(given) and kind_of(given) == "an image":
            raise ValueError(f"{given}: is an image, not {meant}; give MODEL IMAGE QUESTION in this order")
    if args.images is not None and (args.table is None or args.features is not None):
        raise ValueError("--images is for image files of a --table")
    if args.picture is not None and args.features is None:
        raise ValueError("--image FILE shows the image of an id of --features STORE")
    if args.map is None and (_of_map(args) or args.method is not None):
        raise ValueError(
            "--method, --map-name, --head, --word and --region choose what --map FILE shows: give --map too"
        )
    if _of_map(args) and args.method is not None:
        raise ValueError("--method explains the answer and --map-name, --head, --word, --region show a map: choose one")
    if args.map is not None and args.map.suffix.lower() not in PICTURES:
        raise ValueError(f"--map {args.map}: the name must end in {', '.join(PICTURES)}")
    keep_inputs("--map", args.map, [args.image, args.picture])
    keep_inputs("--out", args.out, [args.table])


def _of_map(args: argparse.Namespace) -> bool:
    """Whether the picture shows an attention map, not what the answer depends on."""
    return any(value is not None for value in (args.map_name, args.head, args.word, args.region))


# One image


def _ask_questions(args: argparse.Namespace, predictor: Predictor) -> int:
    from msgspec import to_builtins

    from coattn.apps.schema import asked_question
    from coattn.explain.answers import UNSURE

    encoded = predictor.encode(args.image, picture=args.picture)
    answers = predictor.ask_many(
        [(encoded, question) for question in args.questions],
        top_k=args.top_k,
        max_risk=args.max_risk,
        answer_anyway=args.answer_anyway,
    )
    if args.map is not None:
        explain = predictor.maps if _of_map(args) else partial(predictor.attribute, method=args.method or "dependence")
        explanations = [explain(encoded, question, top_k=args.top_k) for question in args.questions]
        judged = zip(explanations, answers, strict=True)
        _write_picture(args, [replace(explanation, answers=found) for explanation, found in judged])
    for number, (question, found) in enumerate(zip(args.questions, answers, strict=True)):
        if args.json:
            entry = to_builtins(asked_question(question, found))
            print(json.dumps({"image": args.image, **entry}, ensure_ascii=False))
            continue
        lines = [UNSURE] if found.withheld else [f"{100 * confidence:6.1f} %  {text}" for text, confidence in found]
        print("\n".join([*([""] if number else []), question, *lines, *(f"      !    {why}" for why in found.reasons)]))
    if args.map is not None and not args.json:
        print(f"\n{args.map} explains the answer")
    return 0


def _write_picture(args: argparse.Namespace, explanations: Sequence[Explanation]) -> None:
    """Write the full picture of one question, or the pictures of several side by side."""
    from coattn._internal.files import atomic_path
    from coattn.visualization.attention import compare, draw

    if len(explanations) == 1:
        picture = draw(explanations[0], map=args.map_name, head=args.head, word=args.word, region=args.region)
    else:
        picture = compare(explanations, map=args.map_name, head=args.head, word=args.word, region=args.region)
    with atomic_path(args.map) as partial:
        picture.save(partial, format=PICTURES[args.map.suffix.lower()], compress_level=3)  # half the time of 6


# A table


def _ask_table(args: argparse.Namespace, predictor: Predictor, rows: Rows, image: str, question: str) -> int:
    """Answer every row, each image extracted once; rows that cannot be answered say why."""
    from coattn._internal.files import error_text
    from coattn._internal.progress import progress

    if args.features is None:
        _ = predictor.extractor  # fail once here instead of once per row
    find = _finder(args)
    by_image: dict[str, list[int]] = {}
    for number, row in enumerate(rows.rows):
        by_image.setdefault(str(row.cells.get(image, "")).strip(), []).append(number)
    results: dict[int, Answers | Exception] = {}
    with progress("ask", len(rows.rows), unit="questions") as advance:
        for name, numbers in by_image.items():
            try:
                if not name:
                    raise ValueError("no image is named")
                encoded = predictor.encode(find(name))
                found = _answers(
                    args, predictor, encoded, [rows.rows[number].cells.get(question, "") for number in numbers]
                )
            except (ValueError, OSError) as error:
                found = [ValueError(error_text(error))] * len(numbers)
            results |= zip(numbers, found, strict=True)
            advance(len(numbers))
    for number, row in enumerate(rows.rows):
        if row.problem:
            results[number] = ValueError(row.problem)
    _write_table(args.out, rows, [results[number] for number in range(len(rows.rows))])
    failed = {number: result for number, result in sorted(results.items()) if isinstance(result, Exception)}
    for number, result in failed.items():
        print(f"coattn: {args.table}: {rows.rows[number].place}: {result}", file=sys.stderr)
    print(f"{len(rows.rows) - len(failed)} of {len(rows.rows)} questions answered in {args.out}")
    return 1 if failed else 0


def _finder(args: argparse.Namespace) -> Any:
    """A function from a cell of the image column to an argument of `Predictor.encode`."""
    if args.features is not None:
        return str
    if args.images is not None:
        from coattn.datasets.image_files import ImageFolder

        folder = ImageFolder(args.images)
        return lambda name: folder.folder / folder.find(name)
    return lambda name: args.table.parent / name


def _answers(
    args: argparse.Namespace, predictor: Predictor, image: EncodedImage, questions: Sequence[Any]
) -> list[Answers | Exception]:
    """The best answer to each question about one image, with its doubts, or what is wrong with the question."""
    try:
        pairs = [(image, text) for text in questions]
        return list(predictor.ask_many(pairs, top_k=1, max_risk=args.max_risk, answer_anyway=args.answer_anyway))
    except ValueError as error:
        if len(questions) == 1:
            return [error]
        return [answer for text in questions for answer in _answers(args, predictor, image, [text])]


def _write_table(path: Path, rows: Rows, results: Sequence[Answers | Exception]) -> None:
    from coattn._internal.files import atomic_path
    from coattn.explain.answers import UNSURE

    # A table that has a column of that name, the right answers for example, keeps it.
    prefix = "model_" if set(ADDED) & set(rows.columns) else ""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*rows.columns, *(prefix + name for name in ADDED)])
        for row, result in zip(rows.rows, results, strict=True):
            cells = [row.cells.get(column, "") for column in rows.columns]
            if isinstance(result, Exception):
                writer.writerow([*cells, *[""] * (len(ADDED) - 1), result])
                continue
            best = (UNSURE, "") if result.withheld else (result[0].text, f"{result[0].confidence:.4f}")
            doubts = (" ".join(result.reasons), ", ".join(result.unknown_words))
            writer.writerow([*cells, *best, "yes" if result.withheld else "no", *doubts, ""])


# Small parts


def _head(text: str) -> int | str:
    if text == "mean":
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number or mean, got {text!r}")


def _word(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


@contextmanager
def _warnings_on_stderr(*, doubts: bool) -> Iterator[None]:
    """Print each warning of this package once, as one line, with or without the doubts of answers."""
    shown: set[str] = set()
    show_others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if category not in (UserWarning, DoubtWarning):
            show_others(message, category, *place)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"coattn: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("always" if doubts else "ignore", DoubtWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
