"""VQA v1 and v2, abstract scenes, VQA-CP and OK-VQA: questions with ten answers each, in pairs of files.

Sources: https://visualqa.org/download.html, https://visualqa.org/vqa_v1_download.html (Antol et al. 2015, arXiv
1505.00468; Goyal et al. 2017, arXiv 1612.00837); VQA-CP (Agrawal et al. 2018, arXiv 1712.00377); OK-VQA
(https://okvqa.allenai.org, Marino et al. 2019, arXiv 1906.00067).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, coco_names
from coattn.datasets.reader import VALIDATION, Option, Reader, published_reader
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa

_TASKS = {"open-ended": "OpenEnded", "multiple-choice": "MultipleChoice"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The files of one data set.

    Attributes:
        questions: split to the name of its file; "{task}" is replaced by the task in VQA v1's names.
        annotations: the same for the answers of the splits whose answers are published.
        bare: the files are lists without a head.
    """

    questions: Mapping[str, str]
    annotations: Mapping[str, str]
    bare: bool = False


def _coco(prefix: str, *tests: str) -> Pairs:
    parts = {"train": "train2014", "val": "val2014"}
    return Pairs(
        questions={
            split: f"{prefix}{{task}}_mscoco_{part}_questions.json"
            for split, part in [*parts.items(), *((test, f"{test}2015") for test in tests)]
        },
        annotations={split: f"{prefix}mscoco_{part}_annotations.json" for split, part in parts.items()},
    )


def _changing_priors(version: int) -> Pairs:
    names = {split: f"vqacp_v{version}_{split}_" for split in ("train", "test")}
    return Pairs(
        questions={split: f"{name}questions.json" for split, name in names.items()},
        annotations={split: f"{name}annotations.json" for split, name in names.items()},
        bare=True,
    )


def _abstract_scenes() -> Pairs:
    return Pairs(
        questions={split: f"{{task}}_abstract_v002_{split}2015_questions.json" for split in ("train", "val", "test")},
        annotations={split: f"abstract_v002_{split}2015_annotations.json" for split in ("train", "val")},
    )


def _scene_names(image_id: int | str) -> list[str]:
    """File names of an abstract scene: abstract_v002_train2015_000000011779."""
    return [f"abstract_v002_{split}2015_{int(image_id):012d}" for split in ("train", "val", "test")]


PAIRS = {
    "vqa-abstract": _abstract_scenes(),
    "vqa-v1": _coco("", "test-dev", "test"),
    "vqa-v2": _coco("v2_", "test-dev", "test"),
    "vqa-cp-v1": _changing_priors(1),
    "vqa-cp-v2": _changing_priors(2),
    "ok-vqa": _coco(""),
}


def read_pairs(
    files: str | Path,
    *,
    name: str,
    images: str | Path | None = None,
    task: str = "open-ended",
    val_fraction: float = 0.0,
    skip_bad_rows: bool = False,
) -> Dataset:
    """Read the splits whose questions are there. The answers of train, val and VQA-CP's test are required.

    Args:
        files: folder or zip archive with the authors' files.
        name: a key of PAIRS.
        images: folder of the images.
        task: of VQA v1: "open-ended", or "multiple-choice" with 18 `choices` per question.
        val_fraction: share of the training images held out as val, for VQA-CP, which has none.
        skip_bad_rows: leave defective records out instead of refusing their file.

    Raises:
        ValueError: a file is missing or not what it should be, or the files of different splits are mixed up; the
            message names file and record.
        OSError: a file cannot be read.
    """
    found, pairs = PublishedFiles(files, skip_bad_rows=skip_bad_rows), PAIRS[name]
    splits: dict[str, list[Record]] = {}
    for split, questions in found.splits(
        {s: [n.format(task=_TASKS[task])] for s, n in pairs.questions.items()}
    ).items():
        answers = pairs.annotations.get(split)
        annotations = None if answers is None else found.need(answers, why=f"the answers to {questions}")
        splits[split] = read_vqa(questions, annotations, split=split, bare=pairs.bare, bad=found.bad).records
    notes = []
    if name == "ok-vqa":
        splits = {split: [_with_type(record) for record in records] for split, records in splits.items()}
    if task == "multiple-choice":
        notes.append("score with coattn score --metric multiple_choice")
    full_name = name if task == "open-ended" else f"{name} {task}"
    image_names = _scene_names if name == "vqa-abstract" else coco_names
    return found.dataset(
        full_name,
        splits,
        metric="vqa_accuracy",
        images=images,
        image_names=image_names,
        val_fraction=val_fraction,
        notes=notes,
    )


# OK-VQA numbers its types of knowledge in words; its annotations file names them.
_KNOWLEDGE = {
    "one": "vehicles and transportation",
    "two": "brands, companies and products",
    "three": "objects, material and clothing",
    "four": "sports and recreation",
    "five": "cooking and food",
    "six": "geography, history, language and culture",
    "seven": "people and everyday life",
    "eight": "plants and animals",
    "nine": "science and technology",
    "ten": "weather and climate",
}


def _with_type(record: Record) -> Record:
    return replace(record, question_type=_KNOWLEDGE.get(record.question_type, record.question_type))


_TEST = "The splits train, val, test-dev and test are read if their files are there."
_TASK = {
    "task": Option("open-ended", "Read the questions without or with choices (default open-ended).", tuple(_TASKS))
}

READERS: dict[str, Reader] = {
    "vqa-v1": published_reader(
        f"""\
VQA v1, from the authors' files, open-ended or multiple choice

{_TEST}

  coattn prepare vqa-v1 VQA_FOLDER data/vqa_v1 --images COCO_FOLDER
  coattn prepare vqa-v1 VQA_FOLDER data/vqa_v1_choices --task multiple-choice""",
        partial(read_pairs, name="vqa-v1"),
        _TASK,
        checked="published layout; no real file was at hand",
    ),
    "vqa-v2": published_reader(
        f"""\
VQA v2, from the authors' files (v2_Questions_Train_mscoco.zip ..., or unpacked)

{_TEST}

  coattn prepare vqa-v2 VQA_FOLDER data/vqa_v2 --images COCO_FOLDER""",
        partial(read_pairs, name="vqa-v2"),
        checked="real files: 60,000 questions of train",
    ),
    "vqa-abstract": published_reader(
        """\
VQA on abstract scenes, from the authors' files (OpenEnded_abstract_v002_train2015_questions.json ...)

  coattn prepare vqa-abstract VQA_FOLDER data/vqa_abstract --images VQA_FOLDER/scene_img""",
        partial(read_pairs, name="vqa-abstract"),
        _TASK,
        checked="published layout; no real file was at hand",
    ),
    **{
        f"vqa-cp-v{version}": published_reader(
            f"""\
VQA-CP v{version}, whose answers have another distribution in test than in train, from the authors' files

  coattn prepare vqa-cp-v{version} VQA_CP_FOLDER data/vqa_cp_v{version}""",
            partial(read_pairs, name=f"vqa-cp-v{version}"),
            VALIDATION,
            checked="published layout; no real file was at hand",
        )
        for version in (1, 2)
    },
    "ok-vqa": published_reader(
        """\
OK-VQA, questions that need outside knowledge, from the authors' files (mscoco_train2014_annotations.json ...)

Its val split is what papers report as test.

  coattn prepare ok-vqa OK_VQA_FOLDER data/ok_vqa --images COCO_FOLDER""",
        partial(read_pairs, name="ok-vqa"),
        checked="published layout; no real file was at hand",
    ),
}
