"""The extractor `torchvision`: the last feature map of a classification network, as a grid of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from coattn._internal.files import require
from coattn._internal.hints import did_you_mean
from coattn.features.extract.extractors.convolutions import fuse_norms, pad_like_tensorflow
from coattn.features.extract.extractors.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FeatureMap,
    GridExtractor,
    Loaded,
    Running,
    tokens_to_map,
)
from coattn.features.extract.extractors.weights import always_the_same, find_torchvision_weights, load_weights, state_of

_POSITIONS = "encoder.pos_embedding"  # of a vision transformer


class TorchvisionGrid(GridExtractor):
    """Any classification network of torchvision: the map before its last pooling, or a vision transformer's patches.

    Args:
        model: name in torchvision, e.g. "resnet50".
        weights: "default": torchvision's newest, downloaded if need be; the name of other weights of torchvision, for
            example "IMAGENET1K_V1"; "none": random, always the same; else a file: a state dict (.pth, read without
            running code, or .safetensors).
        size: height and width of the input; a vision transformer (`vit_...`) takes squares of whole patches, and its
            position embedding is interpolated for other sizes than it was trained on.
        grid: rows and columns to average the map to (cells of uneven maps overlap a little); None: the map as it is.
        global_region: a last region, the whole image: the mean of the map, of a vision transformer its class token.
        scales: see `GridExtractor`.
        tf_same_padding: pad strided convolutions as TensorFlow does, for weights trained there.
        mean: of the pixels the network was trained on, in [0, 1], for red, green and blue; None: as torchvision says
            for its weights, else ImageNet's.
        std: their standard deviation, likewise.
        weights_id: name of the weights in records; None: the name of their file.
        sha256: refuse weights with another hash (see `hash_tensors`).
        device, precision, compile, onnxruntime: where and how to run, see `Running`.

    Raises:
        ValueError: unknown model; weights that do not fit it or are not the ones asked for; a size or scale that it
            cannot work on; a grid finer than the map.
        OSError: the weights cannot be read or downloaded.
        ModuleNotFoundError: torchvision is not installed.
    """

    name = "torchvision"

    def __init__(
        self,
        model: str,
        *,
        weights: str | Path,
        size: Sequence[int] = (224, 224),
        grid: Sequence[int] | None = None,
        global_region: bool = False,
        scales: Sequence[float] = (1.0,),
        tf_same_padding: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        weights_id: str | None = None,
        sha256: str | None = None,
        device: str = "cpu",
        precision: str = "float32",
        compile: bool = False,
        onnxruntime: bool = False,
    ) -> None:
        torchvision = require("torchvision", "vision")
        models = torchvision.models
        known = models.list_models(module=models)
        if model not in known:
            raise ValueError(f"torchvision has no classification model {model!r}{did_you_mean(model, known)}")
        self.model, self.tf_same_padding = model, tf_same_padding
        network = _build(models, model, size)
        self._patch: int | None = network.patch_size if model.startswith("vit_") else None
        if self._patch and tuple(scales) != (1.0,):
            raise ValueError(f"{model} is made for one size of images; give no scales, or take it from transformers")
        known_names = list(network.state_dict())
        backbone = feature_map_network(network, model)
        if tf_same_padding:
            pad_like_tensorflow(backbone)
        given, found_id, own = find_torchvision_weights(weights, models.get_model_weights(model))
        source = str(weights) if own is None else found_id
        if given is not None:
            if self._patch:
                given = _fit_positions(models, given, size[0], self._patch)
            load_weights(backbone, given, known_names, f"{source} for {model}")
        state = state_of(backbone)
        fuse_norms(backbone)
        usual_mean, usual_std = (IMAGENET_MEAN, IMAGENET_STD) if own is None else _normalization(own, model)
        versions = {"torchvision": torchvision.__version__}
        super().__init__(
            Loaded(backbone, state, weights_id or found_id, source, versions),
            Running(device, precision, compile, onnxruntime),
            sha256=sha256,
            model=model,
            size=size,
            grid=grid,
            global_region=global_region,
            scales=scales,
            mean=mean or usual_mean,
            std=std or usual_std,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the features."""
        return {"model": self.model, **super().settings, "tf_same_padding": self.tf_same_padding}

    def network_map(self, images: Tensor) -> FeatureMap:
        """Normalized images (B, 3, height, width) to the last map."""
        found = self._run(images)
        if self._patch:
            return tokens_to_map(found, images.shape[2] // self._patch, images.shape[3] // self._patch)
        if found.dim() != 4:
            raise ValueError(f"its last map has shape {tuple(found.shape[1:])}, it has no grid of features")
        return FeatureMap(found, found.float().mean(dim=(2, 3)))


def _build(models: Any, model: str, size: Sequence[int]) -> Any:
    """The network with random weights, for images of this size where it is made for one."""
    sizes: dict[str, Any] = {}
    if model.startswith("vit_"):
        if size[0] != size[1]:
            raise ValueError(
                f"{model} takes square images, not {size[0]}x{size[1]}; --extractor transformers has "
                "vision transformers that take others"
            )
        sizes = {"image_size": size[0]}
    elif model.startswith("maxvit"):
        sizes = {"input_size": tuple(size)}
    try:
        with always_the_same():
            return models.get_model(model, weights=None, **sizes).eval()  # a trace keeps the mode
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"{model} cannot work on {size[0]}x{size[1]} images ({error})") from None


def _normalization(own: Any, model: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of the pixels that torchvision's weights were trained on."""
    # These two normalize once more inside, but only when torchvision builds them together with their weights.
    if model in ("googlenet", "inception_v3"):
        return (0.5,) * 3, (0.5,) * 3
    usual = own.transforms()
    return usual.mean, usual.std


def _fit_positions(models: Any, given: dict[str, Tensor], side: int, patch: int) -> dict[str, Tensor]:
    """Interpolate the position embedding of a vision transformer to images of another size."""
    positions = given.get(_POSITIONS)
    if positions is None or positions.dim() != 3 or positions.shape[1] == (side // patch) ** 2 + 1:
        return given
    try:
        return dict(models.vision_transformer.interpolate_embeddings(side, patch, dict(given)))
    except ValueError as error:
        raise ValueError(f"the position embedding cannot be interpolated to {side}x{side} images ({error})") from None


def feature_map_network(network: nn.Module, name: str) -> fx.GraphModule:
    """Cut a classification network after its last feature map, that is before its last pooling and its classifier.

    A vision transformer, which pools nothing, is cut after its last normalization.

    Raises:
        ValueError: it has neither.
    """
    graph = fx.symbolic_trace(network).graph
    modules = dict(network.named_modules())
    nodes = list(graph.nodes)
    normalized = next((node for node in nodes if node.target == "encoder.ln"), None)
    pools = [node for node in nodes if _pools_globally(node, modules)]
    if not pools and normalized is None:
        raise ValueError(f"{name} has no grid of features: it does not end in a pooling over a feature map")
    last = pools[-1].args[0] if pools else normalized
    head = next((node for node in nodes if node.op == "call_module" and node.target.startswith("classifier.")), None)
    if head is not None and nodes.index(head) <= nodes.index(last):  # SqueezeNet classifies before it pools
        last = head.args[0]
    for node in reversed(nodes):
        if node.op == "output":
            node.args = (last,)
    graph.eliminate_dead_code()
    backbone = fx.GraphModule(network, graph)
    backbone.delete_all_unused_submodules()
    return backbone.eval()


def _pools_globally(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.AdaptiveAvgPool2d)
    return node.target is F.adaptive_avg_pool2d or (node.op == "call_method" and node.target == "mean")
