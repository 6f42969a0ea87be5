"""Models on disk: directories of our own, and the checkpoints that the authors of published models released."""

from .dcn import dcn_names, from_dcn
from .directory import (
    ANSWERS,
    CONFIG,
    EXTRACTOR,
    QUESTIONS,
    TEXT_ENCODER,
    WEIGHTS,
    ModelDirectory,
    load,
    load_directory,
    read_question_vocabulary,
    save_model,
)
from .hengyuan import from_hengyuan, hengyuan_names
from .hiecoatt import from_hiecoatt, hiecoatt_names
from .mcan_vqa import from_mcan_vqa, mcan_vqa_names
from .names import NameTable
from .openvqa import from_openvqa, openvqa_names

__all__ = [
    "ANSWERS",
    "CONFIG",
    "EXTRACTOR",
    "QUESTIONS",
    "TEXT_ENCODER",
    "WEIGHTS",
    "ModelDirectory",
    "NameTable",
    "dcn_names",
    "from_dcn",
    "from_hengyuan",
    "from_hiecoatt",
    "from_mcan_vqa",
    "from_openvqa",
    "hengyuan_names",
    "hiecoatt_names",
    "load",
    "load_directory",
    "mcan_vqa_names",
    "openvqa_names",
    "read_question_vocabulary",
    "save_model",
]
