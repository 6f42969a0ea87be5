"""VQA-Med 2019, 2020 and 2021: questions about radiology images, as text with one question per line.

Sources: https://github.com/abachaa/VQA-Med-2019 (Ben Abacha et al. 2019), and the repositories of 2020 and 2021. A line
is `image|question|answer`; the references of 2019's test have the category in second place, and `#` between several
correct answers. The questions of 2021's test are `image|question`, their answers, in a second file, `image|answer|...`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from coattn.datasets.json_entries import File, Place
from coattn.datasets.medical import NOTE
from coattn.datasets.prepared import Dataset
from coattn.datasets.published import PublishedFiles, read_text_file
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import Format, read_format

_FILES = {
    "train": ("All_QA_Pairs_train.txt", "VQAnswering_2020_Train_QA_pairs.txt"),
    "val": (
        "All_QA_Pairs_val.txt",
        "VQAnswering_2020_Val_QA_Pairs.txt",
        "VQA-Med-2021-VQAnswering-Task1-New-ValidationSet.txt",
    ),
    "test": (
        "VQAMed2019_Test_Questions_w_Ref_Answers.txt",
        "VQAMed2019_Test_Questions.txt",
        "Task1-VQA-2021-TestSet-Questions.txt",
    ),
}
_REFERENCES = "Task1-VQA-2021-TestSet-ReferenceAnswers.txt"


def read_vqa_med(files: str | Path, *, images: str | Path | None = None, skip_bad_rows: bool = False) -> Dataset:
    """Read the splits of one year whose files are there: train, val and test.

    Question ids are `train/0`, the lines from 0. `question_type` is the category, where the file names it.

    Raises:
        ValueError: a file is missing, or lines are defective; the message names file and line.
        OSError: a file cannot be read.
    """
    references = PublishedFiles(files).find(_REFERENCES)
    answers = {} if references is None else {place.entry[0]: place.entry[1:] for place in _lines(references)}
    form = Format(
        name="vqa-med", files=_FILES, entries=_lines, record=partial(_record, references=answers), notes=(NOTE,)
    )
    return read_format(form, files, images=images, skip_bad_rows=skip_bad_rows)


def _lines(file: File) -> Iterator[Place]:
    for number, line in enumerate(read_text_file(file).split("\n"), start=1):
        if line.strip():
            yield Place(file, "line", number, [cell.strip() for cell in line.split("|")])


def _record(where: Place, split: str, references: Mapping[str, list[str]]) -> Record:
    cells = where.entry
    if not 2 <= len(cells) <= 4 or not all(cells):
        where.fail(f"must be image|question|answer, has {len(cells)} parts of which {cells.count('')} are empty")
    image, category = cells[0], cells[1] if len(cells) == 4 else ""
    question = cells[2] if len(cells) == 4 else cells[1]
    answers = references.get(image, []) if len(cells) == 2 else [part.strip() for part in cells[-1].split("#")]
    return Record(
        question_id=f"{split}/{where.index - 1}",
        image_id=image,
        question=question,
        answers=tuple(answers),
        answer_type=answer_type_of(answers[0]) if answers else "",
        question_type=category,
        split=split,
    )


READER = published_reader(
    """\
VQA-Med of ImageCLEF 2019, 2020 or 2021, radiology, from the authors' text files (All_QA_Pairs_train.txt ...)

  coattn prepare vqa-med VQA_MED_2019_FOLDER data/vqa_med --images VQA_MED_2019_FOLDER""",
    read_vqa_med,
    checked="real files: the test questions of 2019 with answers; the others by projects' loading code",
)
