"""The ONNX graphs of a model that writes its answers: one for the question and the image, one for each further word.

Letters: B batch, N rows (a row is a beam of a question), T question tokens, R regions, D decoder width, L decoder
layers, H heads, d head width, V word ids, S answer words, P answer words that are already written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coattn.nn import VQAGenerator
from coattn.nn.decoder import BOS, EOS, Context
from coattn.nn.decoder.base import SideCache, State
from coattn.runtime.beam import NEVER
from coattn.runtime.folder import DECODER, MODEL
from coattn.runtime.generator import Generator

from .onnx import classifier_axes, example_inputs, exportable, write_graph

# Axes of varying size of the tensors that the first graph passes on to the second.
_PASSED = {
    "context": {0: "batch"},
    "state": {0: "batch", 4: "words"},
    "question_cache": {0: "batch", 4: "tokens"},
    "region_cache": {0: "batch", 4: "regions"},
}


class EncoderGraph(nn.Module):
    """Everything that is computed once for an answer; inputs `runtime.inputs.INPUTS`.

    The outputs are `context` (B, D); `state`, from which the decoder starts: (B, L, 2, D) of a recurrent decoder,
    (B, L, 2, H, 0, d) of a transformer; and, if it attends, `question_cache` (B, L, 2, H, T, d) and `region_cache`
    (B, L, 2, H, R, d), the keys and values of both sides.
    """

    def __init__(self, model: VQAGenerator) -> None:
        super().__init__()
        self.model = exportable(model)
        attends = model.decoder.attention != "none"
        self.outputs = ("context", "state", *(("question_cache", "region_cache") if attends else ()))

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
        model: VQAGenerator = self.model  # type: ignore[assignment]
        context = model.encode(
            question,
            regions,
            question_mask=question_mask,
            region_mask=region_mask,
            boxes=boxes,
            image_sizes=image_sizes,
            need_weights=True,  # in the explicit form an empty row is zero, see `OPSET`
        ).context
        caches = [_stacked(tuple((side.k, side.v) for side in sides)) for sides in zip(*context.sides, strict=True)]
        return context.vector, _stacked(model.decoder.start(context)), *caches


class DecoderGraph(nn.Module):
    """One step of a decoder, for N rows: from a word to the log-probabilities of the next one.

    The outputs are `log_probs` (N, V), -inf for ids that are never written, and `next_state`, whose P is one more than
    that of `state` if the decoder is a transformer.
    """

    def __init__(self, model: VQAGenerator) -> None:
        super().__init__()
        self.decoder = exportable(model.decoder)

    def forward(
        self,
        word: Tensor,
        context: Tensor,
        state: Tensor,
        question_cache: Tensor | None = None,
        region_cache: Tensor | None = None,
        question_mask: Tensor | None = None,
        region_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Read `word` (N,) after `state`; the other inputs as `EncoderGraph` returned them, and the masks."""
        sides: list[tuple[SideCache, SideCache]] = []
        if question_cache is not None and region_cache is not None:
            assert question_mask is not None
            assert region_mask is not None
            for question, regions in zip(question_cache.unbind(1), region_cache.unbind(1), strict=True):
                first = SideCache(question[:, 0], question[:, 1], question_mask)
                sides.append((first, SideCache(regions[:, 0], regions[:, 1], region_mask)))
        past = tuple(layer.unbind(1) for layer in state.unbind(1))
        output = self.decoder(word[:, None], Context(context, tuple(sides)), past, need_weights=True)
        log_probs = output.logits[:, 0, EOS:].log_softmax(-1)
        return F.pad(log_probs, (EOS, 0), value=NEVER), _stacked(output.state)


def _stacked(state: State) -> Tensor:
    """Pairs of tensors (N, ...), one for each layer, as (N, L, 2, ...)."""
    return torch.stack([torch.stack(pair, 1) for pair in state], 1)


def write_generator(model: VQAGenerator, folder: Path) -> None:
    """Write `model.onnx` and `decoder.onnx`; raises as `write_graph` does."""
    inputs = example_inputs(model, batch=3, tokens=5, regions=7)
    encoder = EncoderGraph(model)
    write_graph(encoder, inputs, classifier_axes(), encoder.outputs, folder / MODEL)

    with torch.no_grad():
        passed = dict(zip(encoder.outputs, encoder(**inputs), strict=True))
    axes = {name: dict(_PASSED[name]) for name in encoder.outputs} | {"word": {0: "batch"}}
    if passed["state"].dim() == 6:
        passed["state"] = torch.zeros(*passed["state"].shape[:4], 2, passed["state"].shape[5])  # P is 2
    else:
        del axes["state"][4]
    if "question_cache" in passed:
        masks = ("question_mask", "region_mask")
        passed |= {name: inputs[name] for name in masks}
        axes |= {name: classifier_axes()[name] for name in masks}
    step = {"word": torch.tensor([BOS, EOS, EOS]), **passed}
    write_graph(DecoderGraph(model), step, axes, ["log_probs", "next_state"], folder / DECODER)


def generator_difference(
    model: VQAGenerator,
    exported: Generator,
    inputs: Mapping[str, Tensor],
    arrays: Mapping[str, np.ndarray],
    *,
    num_words: int = 4,
) -> float:
    """The largest difference of a word's log-probability between a model and its graphs, over random answers.

    Args:
        model: reads `inputs`.
        exported: reads `arrays`.
        inputs: a batch, see `example_inputs`.
        arrays: the same batch, see `Generator.start`.
        num_words: of an answer.
    """
    random = torch.Generator().manual_seed(0)
    batch = len(inputs["question"])
    words = torch.randint(EOS, model.decoder.num_answer_words, (batch, num_words), generator=random)
    words[:, 0] = BOS
    rest = {name: value for name, value in inputs.items() if name not in ("question", "regions")}
    with torch.no_grad():
        logits = model(inputs["question"], inputs["regions"], words, **rest)
    expected = logits[..., EOS:].log_softmax(-1).numpy()  # (B, S, V - EOS)

    step, state = exported.start(arrays)
    largest = 0.0
    for place in range(num_words):
        log_probs, state = step(words[:, place].numpy(), state)
        largest = max(largest, float(np.abs(log_probs[:, EOS:] - expected[:, place]).max()))
    return largest
