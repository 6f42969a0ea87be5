"""Visual question answering with stackable co-attention. Importing this package is cheap and needs no torch."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from coattn._internal.files import name_extra

if TYPE_CHECKING:
    from coattn import models as models
    from coattn import nn as nn
    from coattn import runtime as runtime
    from coattn import weights as weights
    from coattn.explain.answers import Answer as Answer
    from coattn.explain.answers import Answers as Answers
    from coattn.explain.maps import Explanation as Explanation
    from coattn.explain.maps import region_weights as region_weights
    from coattn.explain.maps import word_weights as word_weights
    from coattn.features.encoded import EncodedImage as EncodedImage
    from coattn.features.store.reader import FeatureStore as FeatureStore
    from coattn.nn import VQAGenerator as VQAGenerator
    from coattn.nn import VQAModel as VQAModel
    from coattn.predictor import Predictor as Predictor
    from coattn.serialization.directory import load as load
    from coattn.training.train import train as train
    from coattn.visualization.attention import compare as compare
    from coattn.visualization.attention import draw as draw

__version__ = "0.1.0"

# From version 1.29 on, onnxruntime reports its use to Microsoft, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Public name -> defining module. A module is imported when one of its names is first used, so that no name needs the
# dependencies of another.
_MODULES = {
    "Answer": "explain.answers",
    "Answers": "explain.answers",
    "EncodedImage": "features.encoded",
    "Explanation": "explain.maps",
    "FeatureStore": "features.store.reader",
    "Predictor": "predictor",
    "VQAGenerator": "nn",
    "VQAModel": "nn",
    "compare": "visualization.attention",
    "draw": "visualization.attention",
    "load": "serialization.directory",
    "region_weights": "explain.maps",
    "train": "training.train",
    "word_weights": "explain.maps",
}

# Packages whose contents are used under their names: `coattn.models.mcan_small`, `coattn.weights.from_openvqa`.
_PACKAGES = ("models", "nn", "runtime", "weights")

__all__ = sorted([*_MODULES, *_PACKAGES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULES and name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}")
    except ModuleNotFoundError as error:
        raise name_extra(error) from None
    return getattr(module, name) if name in _MODULES else module


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_PACKAGES])
