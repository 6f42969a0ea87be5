"""CLEVR: exact answers, by what is asked and by family of questions (Johnson et al. 2017, arXiv 1612.06890)."""

from __future__ import annotations

import numpy as np

from coattn.datasets.records import Record
from coattn.metrics.judgement import Judgement, Submission, as_annotated, extra

_COMPARE_NUMBERS = dict.fromkeys(("equal_integer", "less_than", "greater_than"), "compare numbers")
_KINDS = {"exist": "exist", "count": "count", **_COMPARE_NUMBERS}


def judge_clevr(submission: Submission) -> Judgement:
    """Equal to the answer, by kind and by family of question (CLEVR).

    The five kinds that papers report go by the last function of the question's program: exist, count, compare numbers
    (equal_integer, less_than, greater_than), query attribute (query_*), compare attributes (equal_*).
    The family is the file's `question_family_index`, 0 to 89. Both are read from the record's `extra` and left out
    where it lacks them, as in CLEVR's test file. The last function of a program may also be the question type.
    """
    answers, notes = as_annotated(submission)
    pairs = zip(answers, submission.records, strict=True)
    worth = np.array([float(answer == record.answer) for answer, record in pairs])
    groups = {
        "kind": [_kind(record) for record in submission.records],
        "question family": [str(record.extra.get("question_family_index", "")) for record in submission.records],
    }
    return Judgement(worth, groups=groups, notes=notes)


def _kind(record: Record) -> str:
    program = extra(record, "program", list)
    last = program[-1] if program and isinstance(program[-1], dict) else {}
    function = str(last.get("function") or last.get("type") or record.question_type)
    if function in _KINDS:
        return _KINDS[function]
    if function.startswith("query_"):
        return "query attribute"
    return "compare attributes" if function.startswith("equal_") else ""
