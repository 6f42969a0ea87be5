"""The extractor `detector`: the objects that a Faster R-CNN of torchvision finds.

Letters: B images, N proposals of all of them, C classes with the background, D width of the box head.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from coattn._internal.files import require
from coattn._internal.hints import did_you_mean
from coattn.features.extract.extractors.base import Regions, check_size
from coattn.features.extract.extractors.network import Loaded, NetworkExtractor, Running
from coattn.features.extract.extractors.weights import always_the_same, find_torchvision_weights, load_weights, state_of


class Boxes(NamedTuple):
    """Candidates of one image: boxes (n, 4) in pixels of the network's input, labels (n,), scores (n,)."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def take(self, chosen: Tensor) -> Boxes:
        """Some of them."""
        return Boxes(*(values[chosen] for values in self))


class Detector(NetworkExtractor):
    """A Faster R-CNN of torchvision (Ren et al. 2015, arXiv 1506.01497): its box head's output for the best boxes.

    Each proposal becomes one box, of the class that it most likely shows (not the background). Boxes are thinned out
    class by class (non-maximum suppression) and the most confident kept; where fewer remain than are wanted, suppressed
    ones fill up. The feature is what the box head (its 1024 numbers before classes) makes of the box itself, not of
    the proposal it came from. An image in which nothing at all is proposed has one region: the whole of it, with label
    0 (background) and score 0.

    Differences from bottom-up attention (Anderson et al. 2018, arXiv 1707.07998): COCO's classes instead of Visual
    Genome's and no attributes; refined boxes instead of proposals; a proposal counts for its likeliest class alone.
    From torchvision's own detections: one class per proposal, no proposal dropped for a low score, images shrunk with
    antialiasing, and images in a batch padded no further than each of them alone.

    Args:
        model: name in torchvision, e.g. "fasterrcnn_resnet50_fpn_v2".
        weights: "default", or a name that torchvision knows, for example "COCO_V1": its own, trained on COCO,
            downloaded if need be; "none": random, always the same; else a file, a state dict of the same network with
            any number of classes.
        min_regions, max_regions: limits of the number of regions, which is that of the boxes with enough confidence.
        confidence: smallest confidence of a box that counts; unused if both limits are equal.
        nms: of two boxes of a class that overlap by more than this (intersection over union), the better one is kept.
        min_side, max_side: images are resized until the shorter side has `min_side` pixels, but the longer at most
            `max_side`; None: as the network was trained.
        weights_id: name of the weights in records; None: the name of their file.
        sha256: refuse weights with another hash (see `hash_tensors`).
        device, precision, compile: where and how to run, see `Running`. Backbone and box head run in `precision`,
            coordinates always in float32; the backbone alone is compiled.

    Raises:
        ValueError: unknown model; a setting out of its range; weights that do not fit or are not the recorded ones.
        OSError: the weights cannot be read or downloaded.
        ModuleNotFoundError: torchvision is not installed.
    """

    name = "detector"

    def __init__(
        self,
        model: str,
        *,
        weights: str | Path,
        min_regions: int = 36,
        max_regions: int = 36,
        confidence: float = 0.2,
        nms: float = 0.5,
        min_side: int | None = None,
        max_side: int | None = None,
        weights_id: str | None = None,
        sha256: str | None = None,
        device: str = "cpu",
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        torchvision = require("torchvision", "vision")
        detection = torchvision.models.detection
        self._operations, self._list_images = torchvision.ops, detection.image_list.ImageList
        known = [name for name in torchvision.models.list_models(module=detection) if name.startswith("fasterrcnn")]
        if model not in known:
            raise ValueError(f"torchvision has no Faster R-CNN {model!r}{did_you_mean(model, known)}")
        if not 1 <= min_regions <= max_regions or not 0 <= confidence <= 1 or not 0 < nms <= 1:
            raise ValueError(
                "detector: it must be 1 <= min_regions <= max_regions, confidence in [0, 1] and nms above 0, at most "
                f"1; got {min_regions}, {max_regions}, {confidence} and {nms}"
            )
        self.model, self.confidence, self.nms = model, confidence, nms
        self.min_regions, self.max_regions = min_regions, max_regions
        given, found_id, own = find_torchvision_weights(weights, torchvision.models.get_model_weights(model))
        source = str(weights) if own is None else found_id
        network = _build(torchvision, model, given, f"{source} for {model}")
        self.min_side, self.max_side = min_side or network.transform.min_size[0], max_side or network.transform.max_size
        check_size("detector", (self.max_side,))
        if not 32 <= self.min_side <= self.max_side:
            raise ValueError(f"detector: it must be 32 <= min_side <= max_side, got {self.min_side}, {self.max_side}")
        versions = {"torchvision": torchvision.__version__}
        super().__init__(
            Loaded(network, state_of(network), weights_id or found_id, source, versions),
            Running(device, precision, compile),
            sha256=sha256,
        )
        self._backbone = self._compiled(self._network.backbone, dynamic=True)
        self.dim = self._network.roi_heads.box_predictor.cls_score.in_features
        self.num_regions = max_regions

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the features."""
        names = ("model", "min_regions", "max_regions", "nms", "min_side", "max_side")
        confidence = {} if self.min_regions == self.max_regions else {"confidence": self.confidence}
        return {name: getattr(self, name) for name in names} | confidence

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resize as torchvision's detectors do, by the shorter and the longer side; (height, width, 3) uint8."""
        scale = min(self.min_side / min(image.size), self.max_side / max(image.size))
        width, height = (max(1, math.floor(side * scale)) for side in image.size)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    @torch.inference_mode()
    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""
        # Padding shows in the features near it: only images that are padded to the same size go together.
        together: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, image in enumerate(pixels):
            together[tuple(-(-side // 32) for side in image.shape[:2])].append(number)
        found = {
            number: regions
            for numbers in together.values()
            for number, regions in zip(numbers, self._describe([pixels[i] for i in numbers]), strict=True)
        }
        return [found[number] for number in range(len(pixels))]

    def _describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        network, heads = self._network, self._network.roi_heads
        sizes = [image.shape[:2] for image in pixels]
        scaled = [torch.tensor(image, device=self._device).permute(2, 0, 1) / 255 for image in pixels]
        batch = network.transform.batch_images([network.transform.normalize(image) for image in scaled])
        with self._autocast():
            maps = self._backbone(batch.contiguous(memory_format=torch.channels_last))  # faster by a tenth and more
        maps = {name: values.float() for name, values in maps.items()}
        proposals, _ = network.rpn(self._list_images(batch, sizes), maps)
        logits, shifts = heads.box_predictor(self._box_features(maps, proposals, sizes))
        refined = heads.box_coder.decode(shifts, proposals)  # (N, C, 4)
        scores, labels = logits.softmax(dim=1)[:, 1:].max(dim=1)
        labels = labels + 1
        boxes = refined[torch.arange(len(labels), device=self._device), labels]
        lengths = [len(each) for each in proposals]
        kept = [
            self._choose(Boxes(*candidates), size)
            for *candidates, size in zip(
                boxes.split(lengths), labels.split(lengths), scores.split(lengths), sizes, strict=True
            )
        ]
        rows = self._box_features(maps, [each.boxes for each in kept], sizes)
        features = rows.split([len(each.boxes) for each in kept])
        return [_to_regions(*each) for each in zip(features, kept, sizes, strict=True)]

    def _box_features(self, maps: Mapping[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """Boxes of each image in pixels to rows (N, D)."""
        pooled = self._network.roi_heads.box_roi_pool(maps, boxes, sizes)
        with self._autocast():
            rows = self._network.roi_heads.box_head(pooled)
        return rows.float()

    def _choose(self, found: Boxes, size: tuple[int, int]) -> Boxes:
        """The regions of an image among its candidates, best first."""
        found = found._replace(boxes=self._operations.clip_boxes_to_image(found.boxes, size))
        found = found.take(self._operations.remove_small_boxes(found.boxes, 1e-2))
        if not len(found.boxes):
            whole = found.boxes.new_tensor([[0, 0, size[1], size[0]]])
            return Boxes(whole, found.labels.new_zeros(1), found.scores.new_zeros(1))
        best = self._operations.batched_nms(found.boxes, found.scores, found.labels, self.nms)
        confident = int((found.scores[best] >= self.confidence).sum())
        number = min(max(confident, self.min_regions), self.max_regions)
        suppressed = torch.ones_like(found.scores, dtype=torch.bool)
        suppressed[best] = False
        by_score = torch.argsort(found.scores, descending=True, stable=True)
        return found.take(torch.cat([best, by_score[suppressed[by_score]]])[:number])


def _to_regions(features: Tensor, kept: Boxes, size: tuple[int, int]) -> Regions:
    height, width = size
    boxes = kept.boxes / kept.boxes.new_tensor([width, height, width, height])
    return Regions(*(values.cpu().numpy() for values in (features, boxes.clamp(0, 1), kept.labels, kept.scores)))


def _build(torchvision: Any, model: str, given: Mapping[str, Tensor] | None, source: str) -> Any:
    """The network with these weights, or random ones."""
    num_classes = {}
    if given is not None:
        given = {_present_name(name): tensor for name, tensor in given.items()}
        last = given.get("roi_heads.box_predictor.cls_score.bias")
        num_classes = {} if last is None else {"num_classes": len(last)}
    with always_the_same():
        # No threshold on proposals: an image should have as many regions as are asked for.
        network = torchvision.models.get_model(
            model, weights=None, weights_backbone=None, rpn_score_thresh=0.0, **num_classes
        )
    if model == "fasterrcnn_resnet50_fpn":
        # These weights were trained with an epsilon of 0, which torchvision sets in the layers that it freezes.
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-30  # negligible beside a variance; some releases of torch refuse 0
    if given is not None:
        load_weights(network, given, network.state_dict(), source)
    return network


def _present_name(name: str) -> str:
    """Name of a tensor today; torchvision's own files are older than its last renaming."""
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
    return re.sub(r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)
