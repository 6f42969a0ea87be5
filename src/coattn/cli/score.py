"""`coattn score`: the official scores of a result file, with intervals, and its difference from another one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coattn.cli.arguments import keep_inputs

if TYPE_CHECKING:
    from coattn.metrics.bootstrap import Difference

DESCRIPTION = """Score a result file against the human answers: overall, by kind of question and by question, in
percent, with 95 % intervals (bootstrap by image)."""
EXAMPLE = """examples:
  coattn score results.json --questions val_questions.json --annotations val_annotations.json --json scores.json
  coattn score results.json --questions q.json --annotations a.json --against baseline.json --plot confidence.png

A result file is a list [{"question_id": 1, "answer": "yes", "confidence": 0.9}, ...] with one answer for every
annotated question. The files of other servers are read too: GQA's and VizWiz's lists, A-OKVQA's object by question,
LLaVA's .jsonl, CLEVR's .txt. With confidences the score contains the expected calibration error, the coverage at a
risk, the area under the risk-coverage curve and the effective reliability (Whitehead et al. 2022). The threshold of the
latter is chosen on the same questions, which flatters; --thresholds takes it from the scores of validation.

metrics:
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `coattn score`."""
    from coattn.metrics.score import METRICS

    lines = {name: str(function.__doc__).partition("\n")[0] for name, function in METRICS.items()}
    parser.epilog = EXAMPLE + "\n".join(f"  {name:<15}  {line}" for name, line in lines.items())
    parser.add_argument("results", type=Path, help="The result file, in any form that `coattn predict` writes.")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="Q.json", help="The questions, in the format of VQA v2."
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="A.json", help="The human answers to them.")
    parser.add_argument(
        "--metric",
        choices=METRICS,
        metavar="METRIC",
        help="One of the metrics below. By default it is the one that the annotations name (info.metric). If they name "
        "none, it is exact_match where most questions have one answer, else vqa_accuracy.",
    )
    parser.add_argument("--against", type=Path, metavar="OTHER.json", help="Test the difference from this result file.")
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="Also score by this column of the questions, for example organ. It may be repeated.",
    )
    parser.add_argument(
        "--train-questions",
        type=Path,
        nargs="+",
        default=[],
        metavar="T.json",
        help="Also score by what these training questions have seen: the image, the question, or both together.",
    )
    parser.add_argument(
        "--choices", type=Path, metavar="C.json", help="GQA's choices file, for validity and plausibility."
    )
    parser.add_argument(
        "--thresholds", type=Path, metavar="SCORES.json", help="Take the thresholds of answering from these scores."
    )
    parser.add_argument(
        "--samples",
        type=_count,
        default=1000,
        metavar="N",
        help="The number of bootstrap samples. 0 leaves out all intervals but those of --against (default: 1000).",
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="Write all scores to this file, by question too.")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="Draw reliability and risk-coverage in this file.")


def run(args: argparse.Namespace) -> int:
    """Score the results, print the table, and write the files that were asked for."""
    from coattn._internal.files import write_json
    from coattn.datasets.results import read_results
    from coattn.datasets.vqa_json import read_vqa
    from coattn.metrics.score import aligned, column_groups, compare, judge, seen_groups, summarize

    inputs = [args.results, args.questions, args.annotations, args.against, args.choices, args.thresholds]
    inputs += args.train_questions
    keep_inputs("--json", args.json, inputs)
    keep_inputs("--plot", args.plot, inputs)
    if args.plot is not None:
        from coattn.visualization.scores import empty_figure, plot_confidence

        empty_figure(args.plot)  # a file that cannot be drawn is refused before the work, not after
    data = read_vqa(args.questions, args.annotations)
    records, metric = data.records, args.metric or data.metric
    results = read_results(args.results, records)
    other = None if args.against is None else read_results(args.against, records)
    if args.plot is not None and not results.confidences:
        raise ValueError(f'{args.results}: has no "confidence", so there is nothing to draw; leave out --plot')
    choices = None if args.choices is None else _object(args.choices)
    thresholds = None if args.thresholds is None else _thresholds(args.thresholds)
    groups = {column: column_groups(records, column) for column in args.by}
    if args.train_questions:
        training = [record for path in args.train_questions for record in read_vqa(path, None).records]
        groups |= seen_groups(training, records)

    judgement = judge(results, records, metric, where=str(args.results), choices=choices, groups=groups)
    differences: dict[str, Difference] = {}
    if other is not None:
        second = judge(other, records, metric, where=str(args.against), choices=choices)
        differences = compare(judgement, second, records, metric, num_samples=args.samples or 1000)
    scores = summarize(judgement, results, records, metric, thresholds=thresholds, num_samples=args.samples)
    if data.num_without_ids and metric in ("vqa_accuracy", "multiple_choice"):
        note = (
            f"{data.num_without_ids} of {len(records)} annotations have answers without answer_id; each answer counts "
            "as that of another person, while the official script leaves out all equal ones together"
        )
        scores = replace(scores, notes=[*scores.notes, note])
    print(scores.table())  # before anything is written, which may fail
    if differences:
        print(f"\n{_difference_table(differences, args.against)}")
    if args.json is not None:
        against = {"file": str(args.against), "differences": {name: d._asdict() for name, d in differences.items()}}
        write_json(args.json, scores.to_json() | ({"against": against} if differences else {}), indent=1)
    if args.plot is not None:
        confidence = aligned(results.confidences, records)
        assert confidence is not None
        plot_confidence(args.plot, confidence, judgement.worth)
    return 0


def _difference_table(differences: dict[str, Difference], other: Path) -> str:
    width = max(len(name) for name in differences)
    title = f"difference to {other}, in points"
    lines = [title, f"{'':<{width}}  difference     95 % interval        p"]
    for name, (value, low, high, p_value) in differences.items():
        lines.append(f"{name:<{width}}  {value:>+10.2f}  {low:>+6.2f} to {high:>+6.2f}  {p_value:>7.4f}")
    lines += ["paired bootstrap and two-sided sign-flip permutation test, both by image"]
    return "\n".join(lines)


def _object(path: Path) -> dict[str, Any]:
    from coattn.datasets.json_entries import describe_value, read_json_file

    value = read_json_file(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must be an object; {describe_value(value)}")
    return value


def _thresholds(path: Path) -> dict[int, float]:
    """The thresholds of an earlier score, by cost; null means that the model always abstains."""
    value = _object(path).get("thresholds")
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{path}: has no thresholds; write it with `coattn score RESULTS --json` from confidences")
    try:
        return {int(cost): float("inf") if threshold is None else float(threshold) for cost, threshold in value.items()}
    except (TypeError, ValueError):
        raise ValueError(f"{path}: the thresholds are {value}, must be numbers by cost") from None


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of samples; give 0 or more")
    return int(text)
