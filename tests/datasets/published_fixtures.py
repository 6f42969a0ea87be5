"""Tiny files of the form in which each data set is published, made here (name -> content), and what becomes of them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coattn.cli import main
from coattn.datasets.records import Record
from coattn.datasets.vqa_json import read_vqa

TEN = [{"answer": "net", "answer_confidence": "yes", "answer_id": number} for number in range(1, 11)]


def pair(prefix: str, part: str, image: int, **extra: Any) -> dict[str, Any]:
    """A questions file and an annotations file of the official layout."""
    ids = {"question_id": image * 1000, "image_id": image}
    head = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": part}
    question = {**ids, "question": "What is this?", **extra}
    answer = {
        **ids,
        "question_type": "what is",
        "multiple_choice_answer": "net",
        "answers": TEN,
        "answer_type": "other",
    }
    return {
        f"{prefix}_mscoco_{part}_questions.json": {**head, "questions": [question]},
        f"{prefix.replace('OpenEnded', '').replace('MultipleChoice', '')}mscoco_{part}_annotations.json": {
            **head,
            "annotations": [answer],
        },
    }


def gqa(question_id: str, image: str, answer: str | None, structural: str = "query") -> dict[str, Any]:
    entry: dict[str, Any] = {"question": "What is hanging?", "imageId": image, "isBalanced": True}
    if answer is not None:
        entry |= {
            "answer": answer,
            "fullAnswer": f"The {answer}.",
            "types": {"structural": structural, "semantic": "rel", "detailed": "relS"},
            "groups": {"global": "thing", "local": "14-x"},
            "entailed": ["2"],
            "equivalent": [question_id],
            "semantic": [{"operation": "select", "dependencies": [], "argument": "board (0)"}],
            "semanticStr": "select: board (0)",
            "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        }
    return {question_id: entry}


def clevr(index: int, split: str, answer: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "question_index": index,
        "image_index": 0,
        "image_filename": f"CLEVR_{split}_000000.png",
        "split": split,
        "question": "Are there more big cubes than small ones?",
    }
    if answer is not None:
        program = [{"inputs": [], "function": "scene", "value_inputs": []}, {"inputs": [0], "function": "count"}]
        entry |= {"answer": answer, "question_family_index": 42, "program": program}
    return entry


def vizwiz(name: str, *, answered: bool = True) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": name, "question": "What's this?"}
    if answered:
        answers = [{"answer": "soup", "answer_confidence": "yes"}] * 9 + [{"answer": "can", "answer_confidence": "no"}]
        entry |= {"answers": answers, "answer_type": "other", "answerable": 1}
    return entry


def textvqa(number: int, *, answered: bool = True) -> dict[str, Any]:
    entry = {
        "question_id": number,
        "image_id": "0054c9",
        "question": "what brand?",
        "question_tokens": ["what", "brand"],
    }
    entry |= {"image_classes": ["Phone"], "image_width": 1024, "image_height": 730, "set_name": "x"}
    return {**entry, "answers": ["nokia"] * 10} if answered else entry


def a_okvqa(key: str, *, answered: bool = True) -> dict[str, Any]:
    entry = {"split": "x", "image_id": 299207, "question_id": key, "question": "What awaits him?"}
    entry |= {"choices": ["skateboarder", "train", "delivery", "cab"], "difficult_direct_answer": False}
    right = {"correct_choice_idx": 3, "direct_answers": ["ride"] * 9 + ["cab"], "rationales": ["He waits."]}
    return entry | (right if answered else {})


def rad(number: int, image: str, phrase: str, answer: Any, kind: str) -> dict[str, Any]:
    entry = {
        "qid": number,
        "phrase_type": phrase,
        "image_name": image,
        "image_organ": "HEAD",
        "evaluation": "evaluated",
    }
    return entry | {"question": "Is it big?", "answer": answer, "answer_type": kind, "question_type": "PRES"}


def slake(number: int, language: str, answer: str, kind: str) -> dict[str, Any]:
    entry = {"qid": number, "img_id": 1, "img_name": "xmlab1/source.jpg", "q_lang": language, "location": "Abdomen"}
    entry |= {"question": "What modality?", "answer": answer, "answer_type": kind, "content_type": "Modality"}
    return entry | {"modality": "MRI", "base_type": "vqa", "triple": ["vhead", "_", "_"]}


def npy(count: int) -> bytes:
    content = io.BytesIO()
    pixels = np.zeros((count, 30, 30, 3), np.uint8)
    pixels[..., 0] = 255  # blue comes first
    np.save(content, pixels)
    return content.getvalue()


COCO_QA = {"questions": "what is on it\nhow many\n", "answers": "cup\ntwo\n", "img_ids": "7\n8\n", "types": "0\n1\n"}
PATH = [{"image": "train_0422", "question": "Where are liver cells?", "answer": "in the canals"}]
PATH_YES = [{"img_id": "val_0001", "sent": "Is it?", "label": {"no": 0.3, "yes": 1}, "question_type": "is"}]

# The command's name (with options) to the files; a value is text, bytes, or written as JSON.
SETS: dict[str, dict[str, Any]] = {
    "vqa-v1": pair("OpenEnded", "train2014", 1) | pair("OpenEnded", "val2014", 2),
    "vqa-v1 --task multiple-choice": pair("MultipleChoice", "train2014", 1, multiple_choices=["net", "no"]),
    "vqa-v2": pair("v2_OpenEnded", "train2014", 458752)
    | pair("v2_OpenEnded", "val2014", 2)
    | {
        "v2_OpenEnded_mscoco_test2015_questions.json": {
            "questions": [{"question_id": 1, "image_id": 3, "question": "?a"}]
        }
    },
    "vqa-cp-v2": {
        f"vqacp_v2_{split}_{kind}.json": [
            {**entry, "question_id": image, "image_id": image, "coco_split": "train2014"}
            for image in images
            for entry in pair("", "x", image)[f"{prefix}mscoco_x_{kind}.json"][kind]
        ]
        for split, images in (("train", range(1, 11)), ("test", range(20, 22)))
        for kind, prefix in (("questions", "_"), ("annotations", ""))
    },
    "ok-vqa": pair("OpenEnded", "train2014", 1) | pair("OpenEnded", "val2014", 2),
    "gqa": {
        "train_balanced_questions.json": gqa("1", "n5", "picture") | gqa("2", "n6", "yes", "verify"),
        "testdev_balanced_questions.json": gqa("3", "n7", "left", "choose"),
        "test_balanced_questions.json": gqa("4", "n8", None),
    },
    "gqa --questions all": {
        "train_all_questions/train_all_questions_0.json": gqa("1", "n5", "picture"),
        "train_all_questions/train_all_questions_1.json": gqa("2", "n6", "yes"),
        "val_all_questions.json": gqa("3", "n7", "left"),
    },
    "clevr": {
        f"CLEVR_v1.0/questions/CLEVR_{split}_questions.json": {
            "info": {"split": split, "license": "x", "version": "1.0", "date": "2/14/2017"},
            "questions": [clevr(0, split, answer), clevr(1, split, answer)],
        }
        for split, answer in (("train", "yes"), ("val", "3"), ("test", None))
    },
    "coco-qa --val-fraction 0": {
        f"{split}/{name}.txt": text for split in ("train", "test") for name, text in COCO_QA.items()
    },
    "vizwiz": {
        f"{split}.json": [vizwiz(f"VizWiz_{split}_00000000.jpg", answered=split != "test")]
        for split in ("train", "val", "test")
    },
    "textvqa": {
        f"TextVQA_0.5.1_{split}.json": {"dataset_name": "textvqa", "data": [textvqa(1, answered=split != "test")]}
        for split in ("train", "val", "test")
    },
    "a-okvqa": {
        f"aokvqa_v1p0_{split}.json": [a_okvqa("22Mex", answered=split != "test")] for split in ("train", "val", "test")
    },
    "vqa-rad --val-fraction 0": {
        "VQA_RAD Dataset Public.json": [
            rad(0, "synpic1.jpg", "freeform", "Yes", "CLOSED"),
            rad(1, "synpic2.jpg", "para", 5, "OPEN"),
            rad(2, "synpic1.jpg", "test_freeform", "left", "CLOSED "),
        ]
    },
    "slake": {
        f"Slake1.0/{name}.json": [slake(start, "en", "MRI", "OPEN"), slake(start + 1, "zh", "是", "CLOSED")]
        for name, start in (("train", 0), ("validate", 10), ("test", 20))
    },
    "pathvqa": {"qas/train/train_qa.pkl": pickle.dumps(PATH), "qas/val_vqa.pkl": pickle.dumps(PATH_YES, 2)},
    "shapes": {
        f"{name}{suffix}": value
        for name in ("train.large", "val", "test")
        for suffix, value in {
            ".query_str.txt": "is a circle blue\nis red above blue\n",
            ".output": "true\nfalse\n",
            ".input.npy": npy(2),
        }.items()
    },
}

SETS |= {
    "gqa-ood": {
        "data/ood_testdev_head.json": gqa("1", "n5", "couch"),
        "data/ood_testdev_tail.json": gqa("2", "n6", "sofa"),
    },
    "vqa-abstract": {
        "OpenEnded_abstract_v002_train2015_questions.json": {
            "questions": [{"question_id": 5, "image_id": 11779, "question": "Who looks happier?"}]
        },
        "abstract_v002_train2015_annotations.json": {
            "annotations": [
                {"question_id": 5, "image_id": 11779, "answers": TEN, "answer_type": "other", "question_type": "who"}
            ]
        },
    },
    "docvqa": {
        "train/train_v1.0_withQT.json": {
            "dataset_name": "SP-DocVQA",
            "dataset_split": "train",
            "data": [
                {
                    "questionId": 337,
                    "question": "what is the date?",
                    "question_types": ["handwritten", "form"],
                    "image": "documents/xnbl0037_1.png",
                    "docId": 279,
                    "answers": ["1/8/93", "1.8.93"],
                    "data_split": "train",
                }
            ],
        },
        "test/test_v1.0.json": {"data": [{"questionId": 2, "question": "who?", "image": "documents/a_1.png"}]},
    },
    "st-vqa": {
        "train_task_3.json": {
            "data": [
                {
                    "question": "What is the price?",
                    "answers": ["10", "$10"],
                    "question_id": "3_coco-text_1",
                    "file_path": "coco-text/COCO_train2014_000000000036.jpg",
                    "file_name": "COCO_train2014_000000000036.jpg",
                    "dataset": "coco-text",
                    "set_name": "train",
                }
            ]
        },
    },
    "scienceqa": {
        "problems.json": {
            "1": {
                "question": "Which is farthest north?",
                "choices": ["Ohio", "Maine"],
                "answer": 1,
                "hint": "",
                "image": "image.png",
                "subject": "social science",
                "split": "train",
            },
            "2": {"question": "Without?", "choices": ["a", "b"], "answer": 0, "image": None, "split": "train"},
            "3": {"question": "Which?", "choices": ["a", "b"], "answer": 0, "image": "image.png", "split": "test"},
        }
    },
    "visual7w": {
        "dataset_v7w_telling.json": {
            "images": [
                {
                    "image_id": 2323054,
                    "filename": "v7w_2323054.jpg",
                    "split": "val",
                    "qa_pairs": [
                        {
                            "image_id": 2323054,
                            "qa_id": 871917,
                            "question": "What type of flooring?",
                            "answer": "Wood.",
                            "multiple_choices": ["Tile.", "Carpet.", "Cement."],
                            "type": "what",
                        }
                    ],
                }
            ]
        }
    },
    "vqa-med": {
        "All_QA_Pairs_train.txt": "synpic1|what modality is shown?|ct\nsynpic2|is this a ct scan?|yes\n",
        "VQAMed2019_Test_Questions_w_Ref_Answers.txt": "synpic3|organ|what organ?|face, sinuses, and neck#skull\n",
    },
    "rsvqa": {
        "LR_split_train_questions.json": {
            "questions": [
                {"id": 0, "active": False},
                {
                    "id": 1,
                    "active": True,
                    "img_id": 7,
                    "type": "presence",
                    "question": "Is there water?",
                    "answers_ids": [4],
                },
            ]
        },
        "LR_split_train_answers.json": {
            "answers": [{"id": 4, "active": True, "question_id": 1, "answer": "yes"}, {"id": 5, "active": False}]
        },
    },
    "floodnet --val-fraction 0": {
        "Questions/Training Question.json": {
            "0": {
                "Image_ID": "10165.JPG",
                "Question": "How many buildings?",
                "Ground_Truth": 3,
                "Question_Type": "Simple_Counting",
            }
        },
        "Questions/Test Question.json": {
            "0": {"Image_ID": "10163.JPG", "Question": "Is it flooded?", "Question_Type": "Condition_Recognition"}
        },
    },
    "lxmert": {
        "train.json": [
            {
                "answer_type": "other",
                "img_id": "COCO_train2014_000000458752",
                "label": {"net": 1, "mesh": 0.3},
                "question_id": 458752000,
                "question_type": "what is this",
                "sent": "What is this photo taken through?",
            }
        ],
        "valid.json": [
            {"img_id": "n161313", "label": {"left": 1.0}, "question_id": "201307251", "sent": "Which side?"}
        ],
    },
    "llava --val-fraction 0": {
        "train.json": [
            {
                "id": "000000033471",
                "image": "coco/train2017/000000033471.jpg",
                "conversations": [
                    {
                        "from": "human",
                        "value": "<image>\nWhat color?\nAnswer the question using a single word or phrase.",
                    },
                    {"from": "gpt", "value": "Red"},
                    {"from": "human", "value": "Is it parked?"},
                    {"from": "gpt", "value": "Yes"},
                ],
            },
            {"id": "text only", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi"}]},
        ]
    },
}


def lay_out(folder: Path, files: Mapping[str, Any], *, zipped: bool = False) -> Path:
    """Write the files into a folder, or into an archive in it."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        name: value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
        for name, value in files.items()
    }
    if zipped:
        with zipfile.ZipFile(folder / "published.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return folder / "published.ZIP"
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def prepare(command: str, files: Path, out: Path, *more: str) -> int:
    """The exit status of `coattn prepare`."""
    name, *options = command.split()
    return main(["prepare", name, str(files), str(out), *options, *more])


def prepared(out: Path) -> dict[str, list[Record]]:
    """The written records, by split."""
    names = [path.name.removesuffix("_questions.json") for path in sorted(out.glob("*_questions.json"))]
    answers = {name: out / f"{name}_annotations.json" for name in names}
    return {
        name: read_vqa(out / f"{name}_questions.json", answers[name] if answers[name].exists() else None).records
        for name in names
    }
