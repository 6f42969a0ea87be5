"""Visual question answering with stackable co-attention. Importing this needs torch only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coattn import checkpoint as checkpoint
    from coattn import nn as nn
    from coattn import presets as presets
    from coattn.checkpoint import load as load
    from coattn.explain import Answer as Answer
    from coattn.explain import Explanation as Explanation
    from coattn.explain import region_weights as region_weights
    from coattn.explain import word_weights as word_weights
    from coattn.features.store import FeatureStore as FeatureStore
    from coattn.nn import VQAGenerator as VQAGenerator
    from coattn.nn import VQAModel as VQAModel
    from coattn.picture import compare as compare
    from coattn.picture import draw as draw
    from coattn.predictor import EncodedImage as EncodedImage
    from coattn.predictor import Predictor as Predictor

__version__ = "0.1.0"

# Each name comes from its module when it is first used, so that none needs what only another one needs.
_MODULES = {
    "Answer": "explain",
    "EncodedImage": "predictor",
    "Explanation": "explain",
    "FeatureStore": "features.store",
    "Predictor": "predictor",
    "VQAGenerator": "nn",
    "VQAModel": "nn",
    "compare": "picture",
    "draw": "picture",
    "load": "checkpoint",
    "region_weights": "explain",
    "word_weights": "explain",
}

# Packages whose contents are used under their names: `coattn.checkpoint.from_openvqa`.
_PACKAGES = ("checkpoint", "nn", "presets")

__all__ = sorted([*_MODULES, *_PACKAGES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_PACKAGES])
