"""From a record to the extractor that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coattn.features.extractors.descriptor import Descriptor
from coattn.features.extractors.objects import Objects
from coattn.features.regions import Extractor

WEIGHTS = "extractor.safetensors"
# Extractors of other projects, whose features can be read but not made here.
ELSEWHERE = {
    "bottom-up": "bottom-up attention (Anderson et al. 2018, arXiv 1707.07998)",
    "bottom-up-pytorch": "bottom-up-attention.pytorch, which repeats bottom-up attention in PyTorch",
    "mmf-detectron": "MMF's detector (vqa-maskrcnn-benchmark)",
    "grid-feats": "grid-feats-vqa (Jiang et al. 2020, arXiv 2001.03615)",
    "gqa-grid": "the ResNet-101 of GQA's authors (a grid of 7 x 7 cells of width 2048)",
    "gqa-objects": "the detector of GQA's authors (Hudson & Manning 2019, arXiv 1902.09506)",
    "clevr-grid": "openvqa's script for CLEVR (ResNet-101, a grid of 14 x 14 cells of width 1024)",
}


def build_extractor(record: Mapping[str, Any], *, weights: Path | None = None, device: str = "cpu") -> Extractor:
    """Build the extractor that a record describes, to run it on new images.

    Args:
        record: from a feature store or a model.
        weights: the `extractor.safetensors` kept with it; None for an extractor without weights.
        device: where to run.

    Raises:
        ValueError: unknown extractor, or weights that are missing or not the recorded ones.
    """
    settings = record["settings"]
    if record["name"] in ELSEWHERE:
        raise ValueError(
            f"the features that this model reads come from {ELSEWHERE[record['name']]}, which is not part of coattn: "
            "it answers about images of a feature store, by their ids (--features STORE), not about a bare photo"
        )
    try:
        if record["name"] == "descriptor":
            return Descriptor(**settings)
        if record["name"] == "objects":
            return Objects(**settings)
        if record["name"] == "torchvision":
            if weights is None:
                raise ValueError(f"the extractor torchvision ({settings['model']}) needs its weights, {WEIGHTS}")
            from coattn.features.extractors.torchvision_grid import TorchvisionGrid

            return TorchvisionGrid(weights=weights, sha256=record["weights"]["sha256"], device=device, **settings)
    except TypeError as error:
        raise ValueError(f"extractor {record['name']}: settings that this coattn does not know ({error})") from None
    raise ValueError(
        f"unknown extractor {record['name']!r}; this coattn has descriptor, objects and torchvision. Features of "
        "another are read from a store, by image id (--features STORE)"
    )
