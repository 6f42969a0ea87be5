"""The ONNX graphs of a model and of its image extractor.

Every graph takes batches, questions and images of any size. Letters: B batch, T question tokens, R regions, D width of
a feature, A answers, S answer words, P answer words that are already written.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coattn._internal.files import require
from coattn.features.extract.extractors.network import GridExtractor
from coattn.nn import VQAGenerator, VQAModel
from coattn.nn.attention import MultiHeadAttention
from coattn.nn.layers import UnbiasedLayerNorm
from coattn.nn.regions import RegionEncoder

# At opset 20 the exporter's attention averages the values of a fully masked row. These graphs hold the explicit form
# (`need_weights=True`) or `FusedAttention` instead, in which such a row is zero.
OPSET = 20
LARGEST = {"batch": 4096, "tokens": 4096, "regions": 16384, "words": 4096}

# ONNX orders the gates of a recurrent cell differently from torch: positions in torch's order.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}


class OnnxRecurrence(nn.Module):
    """One layer and direction of an `nn.LSTM` or `nn.GRU` as ONNX's own operator.

    torch's exporter unrolls a recurrence for the example's number of tokens; the operator takes any number.

    Args:
        recurrence: `nn.LSTM` or `nn.GRU` with one layer, one direction and `batch_first`.
    """

    def __init__(self, recurrence: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.kind, self.hidden_size = type(recurrence).__name__, recurrence.hidden_size

        def reordered(weight: Any) -> Tensor:
            gates = weight.detach().chunk(len(_GATES[self.kind]))
            return torch.cat([gates[place] for place in _GATES[self.kind]])

        self.input_weights = nn.Parameter(reordered(recurrence.weight_ih_l0)[None])
        self.hidden_weights = nn.Parameter(reordered(recurrence.weight_hh_l0)[None])
        biases = (reordered(recurrence.bias_ih_l0), reordered(recurrence.bias_hh_l0))
        self.biases = nn.Parameter(torch.cat(biases)[None])

    def forward(self, x: Tensor, start: Tensor | tuple[Tensor, ...] | None = None) -> tuple[Tensor, None]:
        """States (B, T, hidden_size) of `x` (B, T, input_size), and None for the final state, which nothing reads."""
        x = x.transpose(0, 1)  # ONNX's operator takes (T, B, input_size)
        inputs: list[Tensor | None] = [x, self.input_weights, self.hidden_weights, self.biases]
        if start is not None:
            inputs += [None, *(start if isinstance(start, tuple) else (start,))]
        attributes: dict[str, Any] = {"hidden_size": self.hidden_size}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1  # torch multiplies by the reset gate after the linear map
        shape = (x.shape[0], 1, x.shape[1], self.hidden_size)  # (T, directions, B, hidden_size)
        states = torch.onnx.ops.symbolic(self.kind, inputs, attributes, dtype=x.dtype, shape=shape)
        return states[:, 0].transpose(0, 1), None


class FusedAttention(MultiHeadAttention):
    """Multi-head attention without a map as onnxruntime's own operator, in place of about 20 operators.

    It takes the masks of `nn.attention.attend`, of which only masks over the keys, (B, S), become the operator's.

    Args:
        attention: the module that it replaces.
        packed: leave the projections of self-attention to the operator too, as one matrix. onnxruntime's quantization
            would keep such a matrix in the file twice.
    """

    def __init__(self, attention: MultiHeadAttention, *, packed: bool) -> None:
        super().__init__(attention.query_dim, key_dim=attention.key_dim, num_heads=attention.num_heads)
        self.load_state_dict(attention.state_dict())
        self.packed = packed
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.biases = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))

    def forward(
        self,
        queries: Tensor,
        source: Tensor,
        mask: Tensor | None = None,
        *,
        query_mask: Tensor | None = None,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `MultiHeadAttention.forward`; the map is None."""
        if bias is not None or mask is None or mask.dim() != 2:
            return super().forward(queries, source, mask, query_mask=query_mask, bias=bias, need_weights=need_weights)
        # Where all keys are masked, the operators average the values. In self-attention such rows are padding, which
        # nothing reads; elsewhere they become zeros.
        if source is queries and self.packed:
            weights = torch.cat([part.weight.T for part in (self.q_proj, self.k_proj, self.v_proj)], 1)  # (D, 3 D)
            out = self._run("Attention", queries, weights, self.biases, mask.int())
        else:
            parts = (
                F.linear(queries, self.q_proj.weight),  # (B, T, D)
                F.linear(source, self.k_proj.weight),  # (B, S, D)
                F.linear(source, self.v_proj.weight),
            )
            out = self._run("MultiHeadAttention", *parts, self.biases, mask.int())
        if source is not queries:
            out = out * mask.to(out.dtype).amax(1)[:, None, None]
        return self.out_proj(out), None

    def _run(self, operator: str, queries: Tensor, *inputs: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            f"com.microsoft::{operator}",
            (queries, *inputs),
            {"num_heads": self.num_heads, "mask_filter_value": -1e9},
            dtype=queries.dtype,
            shape=queries.shape,
            version=1,
        )


def exportable(module: nn.Module, *, fused: bool = False, packed: bool = False) -> nn.Module:
    """A copy in eval mode whose recurrences and norms are ONNX operators, and its attention too if `fused`.

    See `FusedAttention` for `packed`.
    """
    module = copy.deepcopy(module).eval()
    for name, part in list(module.named_modules()):
        if fused and type(part) is MultiHeadAttention:
            module.set_submodule(name, FusedAttention(part, packed=packed))
        elif isinstance(part, RegionEncoder) and part.standardized:
            fold_standardization(part)
        if isinstance(part, nn.LSTM | nn.GRU):
            module.set_submodule(name, OnnxRecurrence(part))
        elif isinstance(part, UnbiasedLayerNorm):
            module.set_submodule(name, biased_layer_norm(part))
    return module


def fold_standardization(encoder: RegionEncoder) -> None:
    """Move the mean and the standard deviation of the features into the linear map that reads them."""
    features = encoder.features
    weight = features.weight.double() / encoder.feature_std.double()
    bias = features.bias.double() - weight @ encoder.feature_mean.double()
    features.weight, features.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
    encoder.standardized = False


def biased_layer_norm(norm: UnbiasedLayerNorm) -> nn.LayerNorm:
    """MCAN's norm as the usual layer norm, for which ONNX has an operator.

    With c = sqrt(D / (D - 1)), `(x - mean) / (c * std + eps)` is `(x - mean) / (std + eps / c) / c`, and
    `std + eps / c` is replaced by `sqrt(std ** 2 + (eps / c) ** 2)`. Their ratio differs from 1 by at most
    `eps / std`, 1e-6 where a row's standard deviation is 1.
    """
    scale = math.sqrt(norm.dim / max(norm.dim - 1, 1))
    found = nn.LayerNorm(norm.dim, eps=(norm.eps / scale) ** 2)
    found.weight = nn.Parameter(norm.weight.detach() / scale)
    found.bias = nn.Parameter(norm.bias.detach())
    return found


class ClassifierGraph(nn.Module):
    """A `VQAModel` with the inputs `runtime.inputs.INPUTS`; its outputs are the logits (B, A), then the named maps.

    Args:
        model: the model.
        map_names: maps to output.
        packed: see `FusedAttention`.
    """

    def __init__(self, model: VQAModel, map_names: Sequence[str], *, packed: bool = False) -> None:
        super().__init__()
        self.model, self.map_names = exportable(model, fused=not map_names, packed=packed), tuple(map_names)

    def forward(
        self,
        question: Tensor,
        question_mask: Tensor,
        regions: Tensor,
        region_mask: Tensor,
        boxes: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, ...]:
        """See `VQAModel.forward` for the shapes."""
        output = self.model(
            question,
            regions,
            question_mask=question_mask,
            region_mask=region_mask,
            boxes=boxes,
            image_sizes=image_sizes,
            need_weights=True,
        )
        return output.logits, *(output.maps[name] for name in self.map_names)


class ExtractorGraph(nn.Module):
    """The network of a grid extractor: prepared images (B, height, width, 3) uint8 to features (B, R, D)."""

    def __init__(self, extractor: GridExtractor) -> None:
        super().__init__()
        self.extractor, self.network = extractor, extractor._network

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (B, R, D) of prepared images."""
        return self.extractor.features(pixels)


def example_inputs(
    model: VQAModel | VQAGenerator, *, batch: int, tokens: int, regions: int, seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs of a model, with padding in every row but the first; with several rows the last has no region.

    `tokens` and `regions` are lowered to the number of positions that the model has learned, if it has learned any.
    """
    random = torch.Generator().manual_seed(seed)
    encoder: Any = model.question_encoder
    region_encoder: Any = model.region_encoder
    tokens = min(tokens, getattr(encoder, "num_positions", 0) or tokens)
    regions = min(regions, getattr(region_encoder, "num_positions", 0) or regions)

    def mask(size: int) -> Tensor:
        lengths = torch.randint(1, size + 1, (batch, 1), generator=random)
        lengths[0] = size
        return torch.arange(size) < lengths  # (B, size)

    question_mask, region_mask = mask(tokens), mask(regions)
    if batch > 1:
        region_mask[-1] = False
    if encoder.num_words is None:
        shape = (batch, tokens, encoder.question_dim)
        question = torch.randn(shape, generator=random) * question_mask[..., None]
    else:
        question = torch.randint(0, encoder.num_words, (batch, tokens), generator=random) * question_mask
    corners = torch.rand(batch, regions, 2, 2, generator=random).sort(2).values  # upper left, lower right
    return {
        "question": question,
        "question_mask": question_mask,
        "regions": torch.randn(batch, regions, region_encoder.region_dim, generator=random) * region_mask[..., None],
        "region_mask": region_mask,
        "boxes": corners.flatten(2) * region_mask[..., None],
        "image_sizes": torch.tensor([[640.0, 480.0]]).expand(batch, 2).contiguous(),
    }


def write_graph(
    graph: nn.Module,
    inputs: Mapping[str, Tensor],
    axes: Mapping[str, Mapping[int, str]],
    output_names: Sequence[str],
    path: Path,
) -> None:
    """Trace a module and write it as one ONNX file.

    Args:
        graph: the module; its forward takes `inputs` by name.
        inputs: example inputs. A size that varies must not be 1 here, or the trace would fix it.
        axes: of each input, its axes of varying size and their names, keys of `LARGEST`.
        output_names: of the graph.
        path: the file to write.

    Raises:
        ModuleNotFoundError: the exporter's packages are not installed.
        ValueError: the module cannot be traced; the message says why.
    """
    require("onnx", "export")
    require("onnxscript", "export")
    sizes = {name: torch.export.Dim(name, min=1, max=largest) for name, largest in LARGEST.items()}
    shapes = {name: {axis: sizes[size] for axis, size in axes.get(name, {}).items()} for name in inputs}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                kwargs=dict(inputs),
                dynamic_shapes=shapes,
                dynamo=True,
                opset_version=OPSET,
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:  # the exporter wraps every failure in its own exception
        reason = str(error.__cause__ or error).strip().splitlines()
        raise ValueError(
            f"the model cannot be exported to ONNX: {reason[0] if reason else type(error).__name__}"
        ) from error
    assert program is not None
    program.save(path, external_data=False)


def classifier_axes() -> dict[str, dict[int, str]]:
    """Axes of varying size of the inputs of a `ClassifierGraph`."""
    return {
        "question": {0: "batch", 1: "tokens"},
        "question_mask": {0: "batch", 1: "tokens"},
        "regions": {0: "batch", 1: "regions"},
        "region_mask": {0: "batch", 1: "regions"},
        "boxes": {0: "batch", 1: "regions"},
        "image_sizes": {0: "batch"},
    }
