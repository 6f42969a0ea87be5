"""The extractor `torchvision`: the last feature map of a classification network, as a grid of regions."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, fx, nn
from torch.nn import functional as F

from coattn.features.regions import Regions, grid_boxes
from coattn.files import require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TorchvisionGrid:
    """Any classification network of torchvision that ends in a feature map and a pooling (all but the ViT family).

    Images are stretched to `size`, so that the grid covers all of it. Regions are the cells of the map, row by row.

    Args:
        model: name in torchvision, e.g. "resnet50".
        weights: "default": torchvision's named weights, downloaded if need be; "none": random, always the same;
            else a file: a state dict (.pth, read without running code, or .safetensors).
        size: height and width of the input.
        grid: rows and columns to average the map to (cells of uneven maps overlap a little); None: the map as it is.
        global_region: a last region, the whole image: the mean of the map.
        tf_same_padding: pad strided convolutions as TensorFlow does, for weights trained there.
        mean: of the pixels the network was trained on, in [0, 1], for red, green and blue; None: as torchvision says
            for weights "default", else ImageNet's.
        std: their standard deviation, likewise.
        sha256: refuse weights with another hash (see `hash_tensors`).
        device: where to run.

    Raises:
        ValueError: unknown model; weights that do not fit it or are not the ones asked for; a grid finer than the map.
        OSError: the weights cannot be read or downloaded.
        ModuleNotFoundError: torchvision is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        weights: str | Path,
        size: Sequence[int] = (224, 224),
        grid: Sequence[int] | None = None,
        global_region: bool = False,
        tf_same_padding: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        sha256: str | None = None,
        device: str = "cpu",
    ) -> None:
        models = require("torchvision", "vision").models
        known = models.list_models(module=models)
        if model not in known:
            near = difflib.get_close_matches(model, known, n=3) or known[:3]
            raise ValueError(f"torchvision has no classification model {model!r}; nearest: {', '.join(near)}")
        self.model, self.size = model, (size[0], size[1])
        self.grid = (grid[0], grid[1]) if grid else None
        self.global_region, self.tf_same_padding = global_region, tf_same_padding
        self.mean, self.std = tuple(mean or IMAGENET_MEAN), tuple(std or IMAGENET_STD)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # weights "none" are the same every time
            network = models.get_model(model, weights=None).eval()
        known_names = list(network.state_dict())
        self._backbone = feature_map_network(network, model)
        if tf_same_padding:
            _pad_like_tensorflow(self._backbone)
        self._weights_id = str(weights)
        if weights == "default":
            named = models.get_model_weights(model).DEFAULT
            self._weights_id = str(named)
            # These two normalise once more inside, but only when torchvision builds them together with their weights.
            own = ((0.5,) * 3, (0.5,) * 3) if model in ("googlenet", "inception_v3") else None
            default_mean, default_std = own or (named.transforms().mean, named.transforms().std)
            self.mean, self.std = tuple(mean or default_mean), tuple(std or default_std)
            _load(self._backbone, _download(named), known_names, self._weights_id)
        elif weights == "none":
            self._weights_id = "random"
        else:
            self._weights_id = Path(weights).stem
            _load(self._backbone, read_state_dict(Path(weights)), known_names, f"{weights} for {model}")
        self._sha256 = hash_tensors(self.weights)
        if sha256 not in (None, self._sha256):
            raise ValueError(
                f"{weights}: other weights than the recorded ones (hash {self._sha256}, recorded {sha256})"
            )
        self._device = torch.device(device)
        self._backbone.to(self._device)
        self.dim, map_size = self._probe()
        rows, columns = self.grid or map_size
        if rows > map_size[0] or columns > map_size[1]:
            raise ValueError(
                f"{model} makes a {map_size[0]}x{map_size[1]} map of a {size[0]}x{size[1]} image, grid "
                f"{rows}x{columns} is finer; give a larger size or a coarser grid"
            )
        whole = np.array([[0, 0, 1, 1]], np.float32)[: int(global_region)]
        self._boxes = np.concatenate([grid_boxes(rows, columns), whole])
        self.num_regions = len(self._boxes)

    @property
    def record(self) -> dict[str, Any]:
        """What this extractor is."""
        return {
            "name": "torchvision",
            "settings": {
                "model": self.model,
                "size": list(self.size),
                "grid": list(self.grid) if self.grid else None,
                "global_region": self.global_region,
                "tf_same_padding": self.tf_same_padding,
                "mean": list(self.mean),
                "std": list(self.std),
            },
            "weights": {"id": self._weights_id, "sha256": self._sha256},
            "versions": {"torch": torch.__version__, "torchvision": require("torchvision", "vision").__version__},
        }

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors of the network up to its feature map."""
        return {name: tensor.cpu() for name, tensor in _state(self._backbone).items()}

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resize to (height, width, 3) uint8."""
        height, width = self.size
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    @torch.inference_mode()
    def describe(self, pixels: Sequence[np.ndarray]) -> list[Regions]:
        """Describe a batch of prepared images."""
        if not pixels:
            return []
        maps = self.feature_map(torch.from_numpy(np.stack(pixels)))
        cells = maps if self.grid is None else F.adaptive_avg_pool2d(maps, self.grid)
        rows = cells.flatten(2)  # (B, D, regions)
        if self.global_region:
            rows = torch.cat([rows, maps.mean(dim=(2, 3))[..., None]], dim=2)
        return [Regions(features, self._boxes) for features in rows.transpose(1, 2).float().cpu().numpy()]

    def feature_map(self, pixels: Tensor) -> Tensor:
        """Prepared images (B, height, width, 3) uint8 to the network's last map (B, D, rows, columns)."""
        mean, std = (torch.tensor(value, device=self._device) for value in (self.mean, self.std))
        scaled = (pixels.to(self._device).float() / 255 - mean) / std
        return self._backbone(scaled.permute(0, 3, 1, 2).contiguous())

    def __call__(self, images: Sequence[Image.Image]) -> list[Regions]:
        """Describe RGB images of any size."""
        return self.describe([self.prepare(image) for image in images])

    @torch.inference_mode()
    def _probe(self) -> tuple[int, tuple[int, int]]:
        """Width and (rows, columns) of the feature map."""
        try:
            shape = self.feature_map(torch.zeros(1, *self.size, 3, dtype=torch.uint8)).shape
        except RuntimeError as error:
            raise ValueError(f"{self.model} cannot work on {self.size[0]}x{self.size[1]} images ({error})") from None
        if len(shape) != 4:
            raise ValueError(f"{self.model} has no grid of features: its last map has shape {tuple(shape[1:])}")
        return shape[1], (shape[2], shape[3])


def feature_map_network(network: nn.Module, name: str) -> fx.GraphModule:
    """Cut a classification network after its last feature map, that is before its last pooling and its classifier.

    Raises:
        ValueError: it pools nothing (vision transformers).
    """
    graph = fx.symbolic_trace(network).graph
    modules = dict(network.named_modules())
    nodes = list(graph.nodes)
    pools = [node for node in nodes if _pools_globally(node, modules)]
    if not pools:
        raise ValueError(f"{name} has no grid of features: it does not end in a pooling over a feature map")
    last = pools[-1].args[0]
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


def _pad_like_tensorflow(network: nn.Module) -> None:
    """Give strided convolutions TensorFlow's "SAME" padding, which depends on the input's size."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1:
            module.padding = (0, 0)
            module.register_forward_pre_hook(_pad_same)


def _pad_same(convolution: nn.Conv2d, inputs: tuple[Tensor]) -> Tensor:
    """Pad so that ceil(length / stride) positions fit; what is odd goes to the right and the bottom."""
    sides: list[int] = []
    for axis in (1, 0):  # F.pad begins with the last dimension
        stride, length = convolution.stride[axis], inputs[0].shape[2 + axis]
        reach = (convolution.kernel_size[axis] - 1) * convolution.dilation[axis] + 1
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(inputs[0], sides)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file or a PyTorch state dict; no code of the file is run.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be opened.
    """
    path.open("rb").close()
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on junk, the unpickler raises nearly anything
        raise ValueError(f"{path}: not a .safetensors file or a PyTorch state dict ({error})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds more than a state dict (name to tensor); save model.state_dict() alone")
    return state


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the order of the names: the same for every file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, without BatchNorm's counters, which change nothing in evaluation."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def _load(backbone: nn.Module, given: Mapping[str, Tensor], known: Iterable[str], source: str) -> None:
    """Copy weights; a classifier that is not needed may be there or not, all else must match."""
    wanted = _state(backbone)
    missing = [name for name in wanted if name not in given]
    unknown = sorted(given.keys() - set(known))
    misshapen = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    if missing or unknown or misshapen:
        shapes = [f"{name} {list(given[name].shape)}, needed {list(wanted[name].shape)}" for name in misshapen[:1]]
        raise ValueError(
            f"weights {source} do not fit: of {len(wanted)} tensors {len(missing)} are missing {missing[:1]}, "
            f"{len(misshapen)} have another shape {shapes}; {len(unknown)} are unknown {unknown[:1]}"
        )
    backbone.load_state_dict({name: given[name] for name in wanted}, strict=False)


def _download(named: Any) -> dict[str, Tensor]:
    try:
        return named.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise OSError(f"cannot download {named} ({error}); give a local file: --weights FILE") from None
