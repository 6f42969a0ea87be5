"""PathVQA: questions about pathology images (He et al. 2020, arXiv 2003.10286).

Sources: the authors' pickles qas/train/train_qa.pkl or train_vqa.pkl, ..., read without running what they may hold; the
JSON lists of their LXMERT baseline (https://github.com/UCSD-AI4H/PathVQA), with one entry per image whose questions and
answers are under `sentf` and `labelf`; and the list QA_pairs_vb.json with `Image_ID`, `Questions` and `Answers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from coattn.datasets.json_entries import File, Place, read_bytes
from coattn.datasets.medical import NOTE
from coattn.datasets.published import answer_text, texts
from coattn.datasets.reader import published_reader
from coattn.datasets.records import Record, answer_type_of
from coattn.datasets.split_files import Format, json_list, read_format

# The keys of image, question and answer in the forms of the data set; the first form that an entry has is read.
_KEYS = (
    ("image", "question", "answer"),
    ("img_id", "sent", "answer"),
    ("img_id", "sent", "label"),
    ("Image_ID", "Questions", "Answers"),
)


def _entries(file: File) -> Iterator[Place]:
    for place in _pickled(file) if ".pkl" in file.name else json_list(file):
        if isinstance(place.entry, dict) and "sentf" in place.entry:
            yield from _flattened(place)
        else:
            yield place


def _pickled(file: File) -> Iterator[Place]:
    from coattn._internal.unpickle import unpickle

    content = unpickle(read_bytes(file), str(file), encoding="utf-8")
    if not isinstance(content, list):
        raise ValueError(f"{file}: holds a {type(content).__name__}, must hold a list of questions")
    for index, entry in enumerate(content):
        yield Place(file, "question", index, entry)


def _flattened(place: Place) -> Iterator[Place]:
    """The questions of one image: `sentf` and `labelf` are objects of equally long lists, one per source."""
    questions, labels = place.entry["sentf"], place.entry.get("labelf", {})
    if not isinstance(questions, dict) or not isinstance(labels, dict):
        place.fail("sentf and labelf must be objects with a list for each source")
    for source, texts_there in questions.items():
        answers = labels.get(source)
        if not isinstance(texts_there, list) or not isinstance(answers, list) or len(texts_there) != len(answers):
            place.fail(f"sentf and labelf differ in length for {source!r}; give one answer per question")
        for number, (question, label) in enumerate(zip(texts_there, answers, strict=True)):
            entry = {"img_id": place.entry.get("img_id"), "sent": question, "label": label}
            yield Place(place.path, "image", place.index, entry, f"{place.index}/{source}/{number}")


def _record(where: Place, split: str) -> Record:
    entry = where.entry if isinstance(where.entry, dict) else {}
    keys = next((keys for keys in _KEYS if all(key in entry for key in keys)), _KEYS[0])
    image, question = texts(where, *keys[:2])
    answer = _best(where, entry, keys[2])
    return Record(
        question_id=f"{split}/{where.key or where.index}",
        image_id=image,
        question=question,
        answers=(answer,),
        answer_type=answer_type_of(answer),
        question_type=str(entry.get("question_type", "")),
        split=split,
    )


def _best(where: Place, entry: Mapping[str, Any], key: str) -> str:
    """The answer, or the best of an object of answers and scores."""
    label = entry.get(key)
    if not isinstance(label, dict) or not label:
        return answer_text(where, key)
    if not all(type(score) in (int, float) for score in label.values()):
        where.fail(f"{key} holds a score that is not a number; it must be answers with their scores")
    return str(max(label, key=label.__getitem__))


PATHVQA = Format(
    name="pathvqa",
    files={
        split: (f"{split}_qa.pkl", f"{split}_vqa.pkl", f"{split}_vqa.json", f"{split}_qa.json", *more)
        for split, more in {"train": ("QA_pairs_vb.json",), "val": (), "test": ()}.items()
    },
    entries=_entries,
    record=_record,
    notes=(NOTE,),
)

READER = published_reader(
    """\
PathVQA, pathology, from the authors' pickles qas/train/train_qa.pkl ... (no code in them is run), or as JSON

  coattn prepare pathvqa PVQA_FOLDER data/pathvqa --images PVQA_FOLDER/images""",
    partial(read_format, PATHVQA),
    checked="layout of the authors' loading code; no real file was at hand",
)
