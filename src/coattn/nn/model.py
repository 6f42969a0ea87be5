"""The models: four parts, given from outside, and the order in which data passes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .coattention import CoAttentionOutput
from .decoder import BOS, PAD, AnswerDecoder, DecoderOutput, Memory, map_tensors, write
from .maps import Maps
from .padding import Inputs, OriginalPadding
from .question import Question


class VQAOutput(NamedTuple):
    """What a model returns.

    Attributes:
        logits: (B, A), one score per answer of the vocabulary.
        maps: name -> attention map (B, H, to, from), empty unless asked for. `layers.<i>.<who>_to_<whom>` come from
            the co-attention, `pooling.question` and `pooling.regions` from the head.
    """

    logits: Tensor
    maps: Maps


class VQAModel(nn.Module):
    """Answers questions about images: encode the question, encode the regions, let them attend, classify.

    Args:
        question_encoder: `(question, mask) -> Question`, see `question`.
        region_encoder: `(regions, mask, boxes, image_sizes) -> (B, R, D)`, see `regions`.
        coattention: `(question, regions, question_mask, region_mask, *, need_weights) -> CoAttentionOutput`, given the
            whole `Question` and what the region encoder gave.
        head: `(attended, question, question_mask, region_mask) -> HeadOutput`.
        padding: for a *faithful* copy of published code, padding as that code saw it; None masks it everywhere.
    """

    def __init__(
        self,
        question_encoder: nn.Module,
        *,
        region_encoder: nn.Module,
        coattention: nn.Module,
        head: nn.Module,
        padding: OriginalPadding | None = None,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.question_encoder = question_encoder
        self.region_encoder = region_encoder
        self.coattention = coattention
        self.head = head

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        *,
        question_mask: Tensor,
        region_mask: Tensor,
        boxes: Tensor | None = None,
        image_sizes: Tensor | None = None,
        need_weights: bool = False,
    ) -> VQAOutput:
        """Score the answers to a batch of questions. Pure: nothing is kept between calls.

        Args:
            question: (B, T) int64 token ids, or (B, T, E) token embeddings; zeros at padding, which is on the right.
            regions: (B, R, D_in) region features, zeros at padding.
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.
            boxes: (B, R, 4) x1 y1 x2 y2 in [0, 1] of the image, for models that use them.
            image_sizes: (B, 2) width and height in pixels, for the few models that need them.
            need_weights: return the attention maps too; changes the logits by rounding only.

        Raises:
            ValueError: masks that do not fit, wrong widths, ids where embeddings are expected or the reverse, boxes
                missing though the model uses them.
        """
        given = inputs = shown = _checked(Inputs(question, regions, question_mask, region_mask, boxes))
        if self.padding is not None:
            inputs = self.padding(given)
            shown = self.padding.encoded(inputs)
        encoded, attended = _attended(self, inputs, shown, image_sizes, need_weights=need_weights)
        logits, pooling_maps = self.head(attended, encoded, inputs.question_mask, inputs.region_mask)
        if not need_weights:
            return VQAOutput(logits, {})
        maps = attended.maps | pooling_maps
        return VQAOutput(logits, maps if self.padding is None else self.padding.restored(maps, given))


class EncodedPair(NamedTuple):
    """Questions and images after the co-attention, ready for any number of words and searches.

    Attributes:
        memory: what the decoder reads.
        maps: the co-attention's maps, see `VQAOutput`; empty unless asked for.
    """

    memory: Memory
    maps: Maps


class GeneratorOutput(NamedTuple):
    """Answers that a generator wrote, best first.

    Attributes:
        tokens: (B, K, S) int64 word ids, `EOS` at the end of each answer and `PAD` behind it; all `PAD` where there are
            no K answers.
        scores: (B, K) length-normalised log-probabilities, by which they are ranked; -inf where there is no answer.
        log_probs: (B, K), the log-probability of the whole answer.
        maps: name -> attention map, empty unless asked for: those of the co-attention, and `decoder.question`
            (B, H, S, T) and `decoder.regions` (B, H, S, R): where each word of the best answer, and its end, was found;
            zeros behind the end.
    """

    tokens: Tensor
    scores: Tensor
    log_probs: Tensor
    maps: Maps


class VQAGenerator(nn.Module):
    """Answers questions about images in words of its own: encode, let the two sides attend, write word by word.

    The first three parts are those of `VQAModel`. Word ids are those of `decoder`: `PAD`, `BOS`, `EOS`, then the words.

    Args:
        question_encoder: `(question, mask) -> Question`, see `question`.
        region_encoder: `(regions, mask, boxes, image_sizes) -> (B, R, D)`, see `regions`.
        coattention: see `VQAModel`.
        decoder: writes the answer, see `decoder`.
        max_length: most words of an answer, if `generate` is not told.
        num_beams: beams of the search, if `generate` is not told.
        length_penalty: of the search, if `generate` is not told; see `decoder.length_norm`.
    """

    def __init__(
        self,
        question_encoder: nn.Module,
        *,
        region_encoder: nn.Module,
        coattention: nn.Module,
        decoder: AnswerDecoder,
        max_length: int = 20,
        num_beams: int = 1,
        length_penalty: float = 0.6,
    ) -> None:
        super().__init__()
        self.question_encoder = question_encoder
        self.region_encoder = region_encoder
        self.coattention = coattention
        self.decoder = decoder
        self.max_length, self.num_beams, self.length_penalty = max_length, num_beams, length_penalty

    def encode(
        self,
        question: Tensor,
        regions: Tensor,
        *,
        question_mask: Tensor,
        region_mask: Tensor,
        boxes: Tensor | None = None,
        image_sizes: Tensor | None = None,
        need_weights: bool = False,
    ) -> EncodedPair:
        """Everything before the first word: once for all words. Arguments and errors as `VQAModel.forward`."""
        inputs = _checked(Inputs(question, regions, question_mask, region_mask, boxes))
        encoded, attended = _attended(self, inputs, inputs, image_sizes, need_weights=need_weights)
        return EncodedPair(self.decoder.remember(attended, encoded, question_mask, region_mask), attended.maps)

    def forward(
        self,
        question: Tensor,
        regions: Tensor,
        answer_tokens: Tensor,
        *,
        question_mask: Tensor,
        region_mask: Tensor,
        boxes: Tensor | None = None,
        image_sizes: Tensor | None = None,
        answer_rows: Tensor | None = None,
    ) -> Tensor:
        """Score the next word after each given one (teacher forcing).

        Args:
            question: this and the others as in `VQAModel.forward`.
            regions: (B, R, D_in).
            answer_tokens: (N, S) int64: `BOS`, then the words.
            question_mask: (B, T) bool.
            region_mask: (B, R) bool.
            boxes: (B, R, 4).
            image_sizes: (B, 2).
            answer_rows: (N,) int64, which of the B questions each answer belongs to, so that one question may have
                several; when None they are N = B and belong to one another.

        Returns:
            Logits (N, S, V); place s is about the word that follows `answer_tokens[:, s]`.
        """
        pair = self.encode(
            question,
            regions,
            question_mask=question_mask,
            region_mask=region_mask,
            boxes=boxes,
            image_sizes=image_sizes,
        )
        if answer_rows is not None:
            pair = EncodedPair(map_tensors(lambda x: x[answer_rows], pair.memory), {})
        return self.decode(pair, answer_tokens).logits

    def decode(self, pair: EncodedPair, answer_tokens: Tensor, *, need_weights: bool = False) -> DecoderOutput:
        """As `forward`, from what `encode` gave, and with the decoder's maps if asked for."""
        return self.decoder(answer_tokens, pair.memory, need_weights=need_weights)

    @torch.no_grad()
    def generate(
        self,
        question: Tensor,
        regions: Tensor,
        *,
        question_mask: Tensor,
        region_mask: Tensor,
        boxes: Tensor | None = None,
        image_sizes: Tensor | None = None,
        num_beams: int | None = None,
        max_length: int | None = None,
        length_penalty: float | None = None,
        need_weights: bool = False,
    ) -> GeneratorOutput:
        """Write the answers: greedily with one beam, by beam search with more. Without gradients.

        Args:
            question: this and the others as in `VQAModel.forward`.
            regions: (B, R, D_in).
            question_mask: (B, T) bool.
            region_mask: (B, R) bool.
            boxes: (B, R, 4).
            image_sizes: (B, 2).
            num_beams: K, beams, and answers returned; this and the next two as the model says when None.
            max_length: most words of an answer.
            length_penalty: see `decoder.length_norm`.
            need_weights: return the maps too.

        Raises:
            ValueError: as `VQAModel.forward`; `num_beams` or `max_length` is below 1.
        """
        pair = self.encode(
            question,
            regions,
            question_mask=question_mask,
            region_mask=region_mask,
            boxes=boxes,
            image_sizes=image_sizes,
            need_weights=need_weights,
        )
        found = write(
            self.decoder,
            pair.memory,
            num_beams=self.num_beams if num_beams is None else num_beams,
            max_length=self.max_length if max_length is None else max_length,
            length_penalty=self.length_penalty if length_penalty is None else length_penalty,
        )
        return GeneratorOutput(*found, self._maps(pair, found.tokens[:, 0]) if need_weights else {})

    def _maps(self, pair: EncodedPair, tokens: Tensor) -> Maps:
        """Every map of answers `tokens` (B, S): they are read again, which gives what was seen while writing them."""
        begun = torch.cat((torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]), 1)
        written = (tokens != PAD)[:, None, :, None]
        maps = self.decode(pair, begun, need_weights=True).maps
        return pair.maps | {name: weights * written for name, weights in maps.items()}


def _checked(inputs: Inputs) -> Inputs:
    """The same, if the masks fit; else ValueError."""
    pairs = (("question", inputs.question_mask, inputs.question), ("region", inputs.region_mask, inputs.regions))
    for name, mask, values in pairs:
        if mask.shape != values.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"{name}_mask must be bool of shape {tuple(values.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}"
            )
    return inputs


def _attended(
    model: VQAModel | VQAGenerator, inputs: Inputs, shown: Inputs, image_sizes: Tensor | None, *, need_weights: bool
) -> tuple[Question, CoAttentionOutput]:
    """What both kinds of models begin with: encoders, which are `shown` the inputs, and co-attention of both sides."""
    encoded = model.question_encoder(shown.question, shown.question_mask)
    attended = model.coattention(
        encoded,
        model.region_encoder(shown.regions, shown.region_mask, shown.boxes, image_sizes),
        inputs.question_mask,
        inputs.region_mask,
        need_weights=need_weights,
    )
    return encoded, attended
