"""Common parts of extractors that run a network: weights, device, precision, and regions from feature maps.

Letters: B images, D width of a feature, R regions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from coattn.features.extract.extractors.base import Regions, check_size, grid_boxes
from coattn.features.extract.extractors.onnx_network import OnnxNetwork
from coattn.features.extract.extractors.weights import hash_tensors

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
RESAMPLINGS = {method.name.lower(): method for method in Image.Resampling}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Loaded(NamedTuple):
    """A network in float32, the tensors to keep beside the features, their name, and the versions of its libraries.

    source: name of the weights in messages.
    """

    network: nn.Module
    weights: dict[str, Tensor]
    weights_id: str
    source: str
    versions: dict[str, str]


class Running(NamedTuple):
    """Where and how a network runs.

    precision: "float32", or with autocast "bf16" or "fp16". compile: let torch.compile make the network faster;
    features change by rounding only. onnxruntime: let onnxruntime run it, likewise; on a CPU in float32.
    """

    device: str
    precision: str
    compile: bool
    onnxruntime: bool = False


class NetworkExtractor(ABC):
    """An extractor with weights.

    Args:
        loaded: the network; it runs in evaluation mode.
        running: where and how.
        sha256: refuse weights with another hash (see `hash_tensors`); None takes any.

    Raises:
        ValueError: other weights than the recorded ones; an unknown precision.
    """

    name: str
    dim: int
    num_regions: int

    def __init__(self, loaded: Loaded, running: Running, *, sha256: str | None) -> None:
        if running.precision not in PRECISIONS:
            raise ValueError(f"precision {running.precision!r}: a network runs in {', '.join(PRECISIONS)}")
        self.weights, self.weights_id, self.precision = loaded.weights, loaded.weights_id, running.precision
        self._sha256 = hash_tensors(self.weights)
        if sha256 not in (None, self._sha256):
            raise ValueError(
                f"{loaded.source}: other weights than the recorded ones (hash {self._sha256}, recorded {sha256})"
            )
        self._versions = {"torch": str(torch.__version__), **loaded.versions}
        if running.onnxruntime and running[:3] != ("cpu", "float32", False):
            raise ValueError(
                "onnxruntime runs networks on a CPU in float32; give --device cpu, and no --precision or --compile"
            )
        self._device, self._compile = torch.device(running.device), running.compile
        self.parallel = self._device.type == "cpu" and not running.compile
        self._network: Any = loaded.network.eval().requires_grad_(False).to(self._device)

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The arguments that determine the features, as plain values, without defaults that change nothing."""

    @property
    def record(self) -> dict[str, Any]:
        """Name, settings and weights of this extractor."""
        precision = {} if self.precision == "float32" else {"precision": self.precision}
        return {
            "name": self.name,
            "settings": {**self.settings, **precision},
            "weights": {"id": self.weights_id, "sha256": self._sha256},
            "versions": self._versions,
        }

    @abstractmethod
    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resize an RGB image to the (height, width, 3) uint8 that `describe` wants."""

    @abstractmethod
    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""

    def __call__(self, images: Sequence[Image.Image]) -> list[Regions]:
        """Prepare and describe RGB images of any size."""
        return self.describe([self.prepare(image) for image in images])

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self._device.type, dtype, enabled=dtype is not None)

    def _compiled(self, module: nn.Module, *, dynamic: bool | None = None) -> Any:
        """The module, compiled if that was asked for."""
        return torch.compile(module, dynamic=dynamic) if self._compile else module


class FeatureMap(NamedTuple):
    """The output of a network for a batch of images.

    cells (B, D, rows, columns); whole (B, D), a feature of the image as a whole; covered: the share of the image's
    height and width that the cells cover, from the top left. It is above 1 where the network pads the image.
    """

    cells: Tensor
    whole: Tensor
    covered: tuple[float, float] = (1.0, 1.0)


class GridExtractor(NetworkExtractor):
    """A network whose features lie on a grid; the regions are its cells, row by row.

    Images are stretched to `size`, so that the grid covers all of it.

    Args:
        loaded, running, sha256: see `NetworkExtractor`.
        model: name of the model in messages.
        size: height and width of the input.
        grid: rows and columns to average the map to (cells of uneven maps overlap a little); None: the map as it is.
        global_region: a last region, the whole image, of the first scale.
        scales: factors of `size`, one input for each; their regions follow one another. The largest input is made of
            the image, the others of the largest.
        mean: of the pixels the network was trained on, in [0, 1], for red, green and blue.
        std: their standard deviation, likewise.
        resample: how images are resized: "bilinear", "bicubic", "lanczos" ...

    Raises:
        ValueError: the network cannot work on this size; a grid finer than the map; an unknown `resample`.
    """

    unit = (1, 1)  # height and width of scaled inputs are multiples of these

    def __init__(
        self,
        loaded: Loaded,
        running: Running,
        *,
        sha256: str | None,
        model: str,
        size: Sequence[int],
        grid: Sequence[int] | None,
        global_region: bool,
        scales: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        resample: str = "bilinear",
    ) -> None:
        super().__init__(loaded, running, sha256=sha256)
        if resample not in RESAMPLINGS:
            raise ValueError(f"resample {resample!r}: images are resized {' or '.join(RESAMPLINGS)}")
        if not scales or not all(0 < scale * max(size) < inf for scale in scales) or len({*scales}) < len(scales):
            raise ValueError(f"scales {list(scales)} must be different positive numbers, for example 1.0 and 0.5")
        check_size(model, [round(max(scales) * side) for side in size])
        self.size, self.grid = (size[0], size[1]), (grid[0], grid[1]) if grid else None
        self.global_region, self.scales = global_region, tuple(float(scale) for scale in scales)
        self.mean, self.std, self.resample = tuple(mean), tuple(std), resample
        self._sizes = [self._scaled(scale) for scale in self.scales]
        self._run: Any = self._network
        self.dim, self.boxes = self._probe(model)
        self.num_regions = len(self.boxes)
        if running.onnxruntime:
            network = OnnxNetwork(self._network, self._sizes)
            self._run, self._versions["onnxruntime"] = network, network.version
        else:
            self._run = self._compiled(self._network)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the features."""
        return {
            "size": list(self.size),
            "grid": list(self.grid) if self.grid else None,
            "global_region": self.global_region,
            "mean": list(self.mean),
            "std": list(self.std),
            **({} if self.scales == (1.0,) else {"scales": list(self.scales)}),
        }

    @abstractmethod
    def network_map(self, images: Tensor) -> FeatureMap:
        """Normalized images (B, 3, height, width) to the features of their cells."""

    def feature_map(self, pixels: Tensor, size: tuple[int, int] | None = None) -> FeatureMap:
        """Prepared images (B, height, width, 3) uint8, shrunk to `size` if that is another, to their features."""
        mean, std = (torch.tensor(value, device=self._device) for value in (self.mean, self.std))
        # Channels stay last in memory: convolutions are about a tenth faster then on a CPU.
        images = ((pixels.to(self._device).float() / 255 - mean) / std).permute(0, 3, 1, 2)
        if size not in (None, tuple(images.shape[2:])):
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        with self._autocast():
            found = self.network_map(images)
        return found._replace(cells=found.cells.float(), whole=found.whole.float())

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resize to (height, width, 3) uint8, of the largest scale."""
        height, width = self.input_size
        return np.asarray(image.resize((width, height), RESAMPLINGS[self.resample]))

    @torch.inference_mode()
    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""
        if not pixels:
            return []
        rows = self.features(torch.from_numpy(np.stack(pixels)))
        return [Regions(features, self.boxes) for features in rows.cpu().numpy()]

    def features(self, pixels: Tensor) -> Tensor:
        """Features (B, R, D) of prepared images (B, height, width, 3) uint8."""
        return self._rows([self.feature_map(pixels, size) for size in self._sizes])

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of a prepared image: those of the largest scale."""
        return max(self._sizes)

    def _scaled(self, scale: float) -> tuple[int, int]:
        if scale == 1:
            return self.size
        height, width = (
            max(1, round(side * scale / unit)) * unit for side, unit in zip(self.size, self.unit, strict=True)
        )
        return height, width

    def _rows(self, maps: Sequence[FeatureMap]) -> Tensor:
        """The maps of all scales to features (B, R, D)."""
        rows = [self._pooled(found.cells).flatten(2) for found in maps]
        whole = [maps[0].whole[..., None]] if self.global_region else []
        return torch.cat([*rows, *whole], dim=2).transpose(1, 2)

    def _pooled(self, cells: Tensor) -> Tensor:
        return cells if self.grid is None else F.adaptive_avg_pool2d(cells, self.grid)

    def _cell_boxes(self, found: FeatureMap) -> np.ndarray:
        height, width = found.covered
        rows, columns = self.grid or found.cells.shape[2:]
        return np.clip(grid_boxes(rows, columns) * np.array([width, height, width, height], np.float32), 0, 1)

    @torch.inference_mode()
    def _probe(self, model: str) -> tuple[int, np.ndarray]:
        """Width and boxes of regions, found by a trial run, which also shows that the network takes these sizes."""
        boxes = []
        for size in self._sizes:
            try:
                pixels = torch.zeros(1, *self.input_size, 3, dtype=torch.uint8)
                found = self.feature_map(pixels, size)
            except (RuntimeError, AssertionError, ValueError, TypeError) as error:
                raise ValueError(f"{model} cannot work on {size[0]}x{size[1]} images ({error})") from None
            rows, columns = found.cells.shape[2:]
            if self.grid is not None and (self.grid[0] > rows or self.grid[1] > columns):
                raise ValueError(
                    f"{model} makes a {rows}x{columns} map of a {size[0]}x{size[1]} image, grid "
                    f"{self.grid[0]}x{self.grid[1]} is finer; give a larger size or a coarser grid"
                )
            boxes.append(self._cell_boxes(found))
        whole = np.array([[0, 0, 1, 1]], np.float32)[: int(self.global_region)]
        return found.whole.shape[1], np.concatenate([*boxes, whole])


def tokens_to_map(tokens: Tensor, rows: int, columns: int, covered: tuple[float, float] = (1.0, 1.0)) -> FeatureMap:
    """Arrange the tokens (B, T, D) of a vision transformer, those of patches last, on the grid of patches.

    The feature of the whole image is the first token if there are tokens before those of the patches (class token,
    registers), else the mean.

    Raises:
        ValueError: there are fewer tokens than patches.
    """
    others = tokens.shape[1] - rows * columns
    if others < 0:
        raise ValueError(f"it returns {tokens.shape[1]} tokens for {rows}x{columns} patches")
    cells = tokens[:, others:].transpose(1, 2).unflatten(2, (rows, columns))
    return FeatureMap(cells, tokens[:, 0] if others else tokens.mean(dim=1), covered)
