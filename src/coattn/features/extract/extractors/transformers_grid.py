"""The extractor `transformers`: the patch tokens of a vision model, as a grid of regions."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from coattn._internal.files import read_json, require
from coattn._internal.hub_cache import CONFIG, WEIGHTS, check_has_config, explained, local_folder, matching, quiet
from coattn.features.extract.extractors.network import FeatureMap, GridExtractor, Loaded, Running, tokens_to_map
from coattn.features.extract.extractors.weights import always_the_same, read_state_dict

KIND = "vision model"
_PREPARATION = ("preprocessor_config.json", "processor_config.json")
_FILES = (CONFIG, *_PREPARATION, "model.safetensors.index.json", *WEIGHTS)
# Parts that do not touch the tokens: weights that lack them are whole.
_UNUSED = ("pooler.", "head.", "embeddings.mask_token")
_TOWER = "vision_model."  # names of the tensors that belong to images, in a model of images and text


class TransformersGrid(GridExtractor):
    """A vision model of `transformers`: ViT, DeiT, DINOv2, DINOv3, CLIP's and SigLIP's vision half, Swin, ConvNeXt ...

    Regions are the last hidden states of the patches, row by row. For inputs of another size than the model was trained
    on, its position embedding is interpolated, where `transformers` can do so. A remainder at the right and the bottom
    that the patches do not cover is in no box. A model whose tokens cannot be assigned to places is refused.

    Args:
        config: the model's architecture, as its config.json has it; see `read_vision_model`.
        weights: "none": random, always the same; else a file of tensors, or a folder with the model's own.
        size: height and width of the input.
        mean: of the pixels the model was trained on, in [0, 1], for red, green and blue.
        std: their standard deviation, likewise.
        resample: how images are resized: "bilinear", "bicubic", "lanczos" or "nearest".
        grid: rows and columns to average the patches to; None: the patches as they are.
        global_region: a last region, the whole image: the class token, or the mean of the patches where there is none.
        scales: see `GridExtractor`; sizes are rounded to whole patches.
        weights_id: name of the weights in records; None: the name of their file.
        sha256: refuse weights with another hash (see `hash_tensors`).
        device, precision, compile: where and how to run, see `Running`.

    Raises:
        ValueError: `transformers` has no such vision model; weights that do not fit it or are not the ones asked for;
            a size that it cannot work on; a grid finer than the patches; features that differ from call to call.
        OSError: the weights cannot be read.
        ModuleNotFoundError: `transformers` is not installed.
    """

    name = "transformers"

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        weights: str | Path,
        size: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        resample: str = "bilinear",
        grid: Sequence[int] | None = None,
        global_region: bool = False,
        scales: Sequence[float] = (1.0,),
        weights_id: str | None = None,
        sha256: str | None = None,
        device: str = "cpu",
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        transformers = require("transformers", "text")
        self.config = dict(config)
        made, source = _vision_config(config, KIND), str(weights)
        if weights == "none":
            with explained(source, kind=KIND), always_the_same():
                network = transformers.AutoModel.from_config(made, trust_remote_code=False)
            tensors, found_id = network.state_dict(), "random"
        else:
            network, tensors = _load(made, _read_tensors(Path(weights)), source)
            found_id = Path(weights).resolve().stem
        self._native = _pair(getattr(made, "image_size", None))
        patch, stages = _pair(getattr(made, "patch_size", None)), len(getattr(made, "depths", [None]))
        self._stride = patch and (patch[0] * 2 ** (stages - 1), patch[1] * 2 ** (stages - 1))
        self._patch, self._stages = patch, stages
        # Tokens before those of the patches: none, a class token, also registers, or DeiT's distillation token.
        self._before = {0, 1, 1 + getattr(made, "num_register_tokens", 0), *([2] if made.model_type == "deit" else [])}
        self.unit = self._stride or (1, 1)
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        super().__init__(
            Loaded(network, tensors, weights_id or found_id, source, {"transformers": transformers.__version__}),
            Running(device, precision, compile),
            sha256=sha256,
            model=made.model_type,
            size=size,
            grid=grid,
            global_region=global_region,
            scales=scales,
            mean=mean,
            std=std,
            resample=resample,
        )
        # ViTMAE of transformers 5.24.0 puts the patches of each image in a random order, also in evaluation.
        with torch.inference_mode():
            one, other = self.feature_map(torch.zeros(2, *self.input_size, 3, dtype=torch.uint8)).cells
        if (one - other).abs().max() > 1e-2 * one.abs().max():
            raise ValueError(f"{source}: {made.model_type} computes other features for the same image each time")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the features."""
        return {"config": self.config, **super().settings, "resample": self.resample}

    def network_map(self, images: Tensor) -> FeatureMap:
        """Normalized images (B, 3, height, width) to the last hidden states."""
        height, width = images.shape[2:]
        options = {"interpolate_pos_encoding": True} if self._interpolates and self._native != (height, width) else {}
        hidden = self._run(pixel_values=images, **options).last_hidden_state
        if hidden.dim() == 4:
            return FeatureMap(hidden, hidden.float().mean(dim=(2, 3)))
        if self._stride is None or hidden.dim() != 3:
            raise ValueError(f"its last hidden state has shape {tuple(hidden.shape[1:])}, without a grid of patches")
        rows, columns = self._grid_of((height, width), hidden.shape[1])
        covered = rows * self._stride[0] / height, columns * self._stride[1] / width
        return tokens_to_map(hidden, rows, columns, covered)

    def _grid_of(self, size: tuple[int, int], num_tokens: int) -> tuple[int, int]:
        """Rows and columns of the patches of an input.

        Some models drop a remainder of the input, others pad it, and halve a padded grid from stage to stage; the
        number of tokens shows which.

        Raises:
            ValueError: the number of tokens fits to no grid.
        """
        assert self._patch is not None
        assert self._stride is not None
        padded = [-(-side // patch) for side, patch in zip(size, self._patch, strict=True)]
        for _ in range(self._stages - 1):
            padded = [-(-side // 2) for side in padded]
        grids = [(size[0] // self._stride[0], size[1] // self._stride[1]), (padded[0], padded[1])]
        before = self._before if self._stages == 1 else {0}
        for rows, columns in grids:
            if num_tokens - rows * columns in before:
                return rows, columns
        raise ValueError(
            f"its {num_tokens} tokens for {grids[0][0]}x{grids[0][1]} patches cannot be assigned to places; "
            "another --size may fit"
        )


def read_vision_model(model: str | os.PathLike[str], *, allow_download: bool = False) -> dict[str, Any]:
    """Read the arguments of `TransformersGrid` from a model's folder: config, weights, preparation of images.

    Size, mean, standard deviation and resampling are taken from the folder. Images are stretched to the size and not
    cropped, so that the regions cover all of them.

    Args:
        model: a folder as `save_pretrained` writes it, with `preprocessor_config.json`; or a name on the Hub.
        allow_download: fetch a name that is not on this machine; otherwise there is no network access at all.

    Raises:
        ValueError: the model is not on this machine, is no vision model, or its folder lacks something.
        ModuleNotFoundError: `transformers` is not installed.
    """
    folder = local_folder(model, allow_download, kind=KIND, files=_FILES)
    check_has_config(folder, kind=KIND)
    values = read_json(folder / CONFIG)
    return {
        "config": _architecture(values, str(folder)),
        "weights": folder,
        "weights_id": folder.resolve().name if Path(model).is_dir() else str(model),
        **_read_preparation(folder),
    }


def _architecture(values: Any, source: str) -> dict[str, Any]:
    """The settings of a config.json that describe the layers for images: those that its class knows."""
    transformers = require("transformers", "text")
    if isinstance(values, dict) and "vision_config" in values:
        made = _config(values, source)
        with explained(source, kind=KIND):
            values = {**values["vision_config"], "model_type": made.vision_config.model_type}
    made = _vision_config(values, source)
    with explained(source, kind=KIND):
        known = type(made)().to_dict().keys() - transformers.PretrainedConfig().to_dict().keys()
    return {key: value for key, value in values.items() if key in known} | {"model_type": made.model_type}


def _config(values: Any, source: str) -> Any:
    transformers = require("transformers", "text")
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(f"{source}: transformers knows no {KIND} of the type {kind!r}")
    with explained(source, kind=KIND):
        return transformers.CONFIG_MAPPING[kind].from_dict(dict(values))


def _vision_config(values: Any, source: str) -> Any:
    """The config that the values of a config.json describe.

    Raises:
        ValueError: it is not that of a vision model, or asks for anything but layers of `transformers`.
    """
    transformers = require("transformers", "text")
    made = _config(values, source)
    if type(made) not in transformers.MODEL_MAPPING or any("backbone" in key for key in values):
        raise ValueError(f"{source}: {made.model_type} is not a plain {KIND} of transformers")
    network = transformers.MODEL_MAPPING[type(made)]
    if isinstance(network, tuple) or network.main_input_name != "pixel_values" or hasattr(made, "vision_config"):
        raise ValueError(f"{source}: {made.model_type} is not a plain {KIND} of transformers")
    beyond = [f"{key} {value}" for key, value in values.items() if _largest(value) > 1 << 20]
    if beyond or (getattr(made, "num_hidden_layers", 0) or 0) > 1000:
        raise ValueError(f"{source}: a {KIND} of this size is refused ({', '.join(beyond) or made.num_hidden_layers})")
    return made


def _read_preparation(folder: Path) -> dict[str, Any]:
    path = next((folder / name for name in _PREPARATION if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(
            f"{folder}: there is no {_PREPARATION[0]}, which says how the images of the model are prepared"
        )
    values = read_json(path)
    if isinstance(values, dict):
        values = values.get("image_processor", values)
    try:
        cut = values.get("do_center_crop", True) and values.get("crop_size")
        size = _side_pair(cut or values["size"])
        normalized = values.get("do_normalize", True)
        mean, std = (values["image_mean"], values["image_std"]) if normalized else ([0.0] * 3, [1.0] * 3)
        scaled = values.get("do_rescale", True) and abs(255 * values.get("rescale_factor", 1 / 255) - 1) < 1e-3
        resample = Image.Resampling(values.get("resample", Image.Resampling.BILINEAR)).name.lower()
        mean, std = ([float(value) for value in three] for three in (mean, std))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: does not say size, image_mean and image_std as expected ({error!r})") from None
    if not scaled or len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{path}: only images of three colors whose pixels are divided by 255 are known here")
    return {"size": size, "mean": mean, "std": std, "resample": resample}


def _side_pair(size: Any) -> list[int]:
    """Height and width of a size as `transformers` writes it: one number, both, or the shorter edge."""
    if isinstance(size, int):
        return [size, size]
    if "shortest_edge" in size:
        return [int(size["shortest_edge"])] * 2
    return [int(size["height"]), int(size["width"])]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_dir():
        return read_state_dict(path)
    files = matching(path, WEIGHTS) or matching(path, ("pytorch_model*.bin",))
    if not files:
        raise ValueError(f"{path}: there is neither model.safetensors nor pytorch_model.bin")
    return {name: tensor for file in files for name, tensor in read_state_dict(file).items()}


def _load(config: Any, given: Mapping[str, Tensor], source: str) -> tuple[Any, dict[str, Tensor]]:
    """The network, and those of the given tensors that are its own, under the names that they have in files.

    These names stay while `transformers` renames its modules from version to version.
    """
    transformers = require("transformers", "text")
    if any(name.startswith(_TOWER) for name in given):
        given = {name: tensor for name, tensor in given.items() if name.startswith(_TOWER)}
    with explained(source, kind=KIND), quiet(transformers.utils.logging):
        network, report = transformers.MODEL_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=dict(given),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(_UNUSED))
    misshapen = sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing or misshapen:
        raise ValueError(
            f"weights {source} do not fit {config.model_type}: {len(missing)} tensors are missing {missing[:1]}, "
            f"{len(misshapen)} have another shape {misshapen[:1]}"
        )
    return network, {name: tensor for name, tensor in given.items() if name not in report["unexpected_keys"]}


def _largest(value: Any) -> int:
    """The largest whole number in a setting."""
    numbers = value if isinstance(value, list) else [value]
    return max((abs(number) for number in numbers if isinstance(number, int)), default=0)


def _pair(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
