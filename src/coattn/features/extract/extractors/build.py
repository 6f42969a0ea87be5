"""Build the extractor that a record describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coattn.features.extract.extractors.base import Extractor, Reading
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.extractors.detector import Detector
from coattn.features.extract.extractors.efficientnet_lite import EfficientNetLite
from coattn.features.extract.extractors.objects import Objects
from coattn.features.extract.extractors.patches import Patches
from coattn.features.extract.extractors.torchvision_grid import TorchvisionGrid
from coattn.features.extract.extractors.transformers_grid import TransformersGrid

WEIGHTS = "extractor.safetensors"
PLAIN: dict[str, Callable[..., Extractor]] = {"descriptor": Descriptor, "objects": Objects, "patches": Patches}
NETWORKS: dict[str, Callable[..., Extractor]] = {
    "efficientnet-lite": EfficientNetLite,
    "torchvision": TorchvisionGrid,
    "detector": Detector,
    "transformers": TransformersGrid,
}
# Extractors of other projects: their features can be converted, but not extracted here.
ELSEWHERE = {
    "bottom-up": "bottom-up attention (Anderson et al. 2018, arXiv 1707.07998)",
    "bottom-up-pytorch": "bottom-up-attention.pytorch, which repeats bottom-up attention in PyTorch",
    "mmf-detectron": "MMF's detector (vqa-maskrcnn-benchmark)",
    "grid-feats": "grid-feats-vqa (Jiang et al. 2020, arXiv 2001.03615)",
    "gqa-grid": "the ResNet-101 of GQA's authors (a grid of 7 x 7 cells of width 2048)",
    "gqa-objects": "the detector of GQA's authors (Hudson & Manning 2019, arXiv 1902.09506)",
    "vl-t5": "VL-T5's detector (py-bottom-up-attention, which repeats bottom-up attention in detectron2)",
    "vinvl": "VinVL's detector (Zhang et al. 2021, arXiv 2101.00529)",
    "clevr-iep": "clevr-iep's script (ResNet-101, a grid of 14 x 14 cells of width 1024)",
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
    name, settings = record["name"], dict(record["settings"])
    if reading := {name: settings.pop(name) for name in ("window", "reduced_decoding") if name in settings}:
        plain = build_extractor({**record, "settings": settings}, weights=weights, device=device)
        return Reading(plain, **reading)
    if name in ELSEWHERE:
        raise ValueError(
            f"the features that this model reads come from {ELSEWHERE[name]}, which is not part of coattn: "
            "it answers about images of a feature store, by their ids (--features STORE), not about a bare photo"
        )
    try:
        if name in PLAIN:
            return PLAIN[name](**settings)
        if name in NETWORKS:
            if weights is None:
                raise ValueError(f"the extractor {name} needs its weights, {WEIGHTS}")
            kept = {"weights": weights, "weights_id": record["weights"]["id"], "sha256": record["weights"]["sha256"]}
            return NETWORKS[name](**kept, device=device, **settings)
    except TypeError as error:
        raise ValueError(f"extractor {name}: settings that this coattn does not know ({error})") from None
    raise ValueError(
        f"unknown extractor {name!r}; this coattn has {', '.join(sorted(PLAIN | NETWORKS))}. Features of another are "
        "read from a store, by image id (--features STORE)"
    )
