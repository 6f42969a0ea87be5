"""Convert released checkpoints of published projects to models."""

from .dcn import dcn_names, from_dcn
from .hengyuan import from_hengyuan, hengyuan_names
from .hiecoatt import from_hiecoatt, hiecoatt_names
from .mcan_vqa import from_mcan_vqa, mcan_vqa_names
from .names import NameTable
from .openvqa import from_openvqa, openvqa_names

__all__ = [
    "NameTable",
    "dcn_names",
    "from_dcn",
    "from_hengyuan",
    "from_hiecoatt",
    "from_mcan_vqa",
    "from_openvqa",
    "hengyuan_names",
    "hiecoatt_names",
    "mcan_vqa_names",
    "openvqa_names",
]
