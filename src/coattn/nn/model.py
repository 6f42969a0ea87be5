"""The models: parts that are passed in, and the order in which data flows through them.

Letters: B batch, T question tokens, R regions, D model width, A answers, H heads, K beams, S words of an answer, V ids.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .coattention import CoAttentionStack
from .decoder import BOS, PAD, AnswerDecoder, Context, DecoderOutput, beam_search, map_tensors
from .maps import Maps


class VQAOutput(NamedTuple):
    """The output of a model.

    Attributes:
        logits: (B, A), one score per answer of the vocabulary.
        maps: name -> attention map (B, H, to, from), empty unless asked for; names as in `maps`.
    """

    logits: Tensor
    maps: Maps


class VQAModel(nn.Module):
    """Answers questions about images: encode both sides, let them attend to each other, score the answers.

    Args:
        question_encoder: `(question, mask) -> Question`, see `question`.
        region_encoder: `(regions, mask, boxes, image_sizes) -> (B, R, D)`, see `regions`.
        coattention: `(question, regions, question_mask, region_mask, *, need_weights) -> CoAttentionOutput`, called
            with the outputs of the two encoders.
        head: `(attended, question, question_mask, region_mask) -> HeadOutput`, called with the outputs of the
            co-attention and of the question encoder.
    """

    def __init__(
        self, question_encoder: nn.Module, *, region_encoder: nn.Module, coattention: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
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
        images: Tensor | None = None,
    ) -> VQAOutput:
        """Score the answers to a batch of questions. The forward is pure: nothing is kept between calls.

        Args:
            question: (B, T) int64 token ids, or (B, T, E) token embeddings; zeros at padding, which is on the right.
            regions: (B, R, D_in) region features, zeros at padding.
            question_mask: (B, T) bool, True = real.
            region_mask: (B, R) bool, True = real.
            boxes: (B, R, 4) x1 y1 x2 y2 in [0, 1] of the image, for models that use them.
            image_sizes: (B, 2) width and height in pixels, for the few models that need them.
            need_weights: return the attention maps too; changes the logits by rounding only.
            images: (B,) int64, the image of each question: its row in `regions` (I, R, D_in), `region_mask`, `boxes`
                and `image_sizes`, which then hold each image once, so that it is encoded once. None: question b is
                about image b.

        Raises:
            ValueError: masks of another shape or type, wrong widths, ids instead of embeddings or the reverse, or
                boxes missing though the model uses them.
        """
        check_masks(question, regions, question_mask, region_mask)

        # Encode each side.
        encoded = self.question_encoder(question, question_mask)
        tokens = self.region_encoder(regions, region_mask, boxes, image_sizes)  # (B, R, D), or (I, R, D)
        if images is not None and not isinstance(self.coattention, CoAttentionStack):
            tokens, region_mask = map_tensors(lambda x: x[images], (tokens, region_mask))  # (B, R, D), (B, R)
            images = None

        # Let the two sides attend to each other.
        shared = {} if images is None else {"images": images}
        attended = self.coattention(encoded, tokens, question_mask, region_mask, need_weights=need_weights, **shared)
        region_mask = region_mask if images is None else region_mask[images]  # (B, R)

        # Score the answers.
        logits, pooling_maps = self.head(attended, encoded, question_mask, region_mask)  # (B, A)
        return VQAOutput(logits, attended.maps | pooling_maps if need_weights else {})


def check_masks(question: Tensor, regions: Tensor, question_mask: Tensor, region_mask: Tensor) -> None:
    """Raise ValueError unless the masks are bool, one value for each token (B, T) and each region (B, R)."""
    for name, mask, values in (("question", question_mask, question), ("region", region_mask, regions)):
        if mask.shape != values.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"{name}_mask must be bool of shape {tuple(values.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}"
            )


class EncodedPair(NamedTuple):
    """Questions and images after the co-attention, for any number of calls of the decoder.

    Attributes:
        context: the input of the decoder.
        maps: the co-attention's maps, see `VQAOutput`; empty unless asked for.
    """

    context: Context
    maps: Maps


class GeneratorOutput(NamedTuple):
    """Answers of a generator, best first.

    Attributes:
        tokens: (B, K, S) int64 word ids, `EOS` at the end of each answer and `PAD` after it; all `PAD` for rows with
            fewer than K answers.
        scores: (B, K) length-normalized log-probabilities, by which answers are ranked; -inf for a missing answer.
        log_probs: (B, K), the log-probability of the whole answer.
        maps: name -> attention map, empty unless asked for: those of the co-attention, and `decoder.question`
            (B, H, S, T) and `decoder.regions` (B, H, S, R) for each word of the best answer and its end; zeros after
            the end.
    """

    tokens: Tensor
    scores: Tensor
    log_probs: Tensor
    maps: Maps


class VQAGenerator(nn.Module):
    """Answers questions about images word by word: encode both sides, let them attend to each other, decode.

    The first three parts are those of `VQAModel`. Word ids are those of `decoder`: `PAD`, `BOS`, `EOS`, then the words.

    Args:
        question_encoder: `(question, mask) -> Question`, see `question`.
        region_encoder: `(regions, mask, boxes, image_sizes) -> (B, R, D)`, see `regions`.
        coattention: see `VQAModel`.
        decoder: scores the next word of the answer, see `decoder`.
        max_length: default of `generate`: largest number of words of an answer.
        num_beams: default of `generate`: number of beams.
        length_penalty: default of `generate`, see `decoder.length_norm`.
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
        """Encode both sides and let them attend, once for all words. Arguments and errors as `VQAModel.forward`."""
        check_masks(question, regions, question_mask, region_mask)
        encoded = self.question_encoder(question, question_mask)
        tokens = self.region_encoder(regions, region_mask, boxes, image_sizes)  # (B, R, D)
        attended = self.coattention(encoded, tokens, question_mask, region_mask, need_weights=need_weights)
        return EncodedPair(self.decoder.context(attended, encoded, question_mask, region_mask), attended.maps)

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
        """Score the next word after each given word (teacher forcing).

        Args:
            question: this and the others as in `VQAModel.forward`.
            regions: (B, R, D_in).
            answer_tokens: (N, S) int64: `BOS`, then the words.
            question_mask: (B, T) bool.
            region_mask: (B, R) bool.
            boxes: (B, R, 4).
            image_sizes: (B, 2).
            answer_rows: (N,) int64, the question of each answer, so that one question may have several answers; when
                None, N = B and answer b belongs to question b.

        Returns:
            Logits (N, S, V); place s scores the word after `answer_tokens[:, s]`.
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
            pair = EncodedPair(map_tensors(lambda x: x[answer_rows], pair.context), {})
        return self.decode(pair, answer_tokens).logits

    def decode(self, pair: EncodedPair, answer_tokens: Tensor, *, need_weights: bool = False) -> DecoderOutput:
        """Like `forward`, from the output of `encode`, and with the decoder's maps if asked for."""
        return self.decoder(answer_tokens, pair.context, need_weights=need_weights)

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
        """Generate answers, greedily with one beam and by beam search with more, without gradients.

        Args:
            question: this and the others as in `VQAModel.forward`.
            regions: (B, R, D_in).
            question_mask: (B, T) bool.
            region_mask: (B, R) bool.
            boxes: (B, R, 4).
            image_sizes: (B, 2).
            num_beams: K, the number of beams and of answers; the model's default when None.
            max_length: largest number of words of an answer; the model's default when None.
            length_penalty: see `decoder.length_norm`; the model's default when None.
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
        found = beam_search(
            self.decoder,
            pair.context,
            num_beams=self.num_beams if num_beams is None else num_beams,
            max_length=self.max_length if max_length is None else max_length,
            length_penalty=self.length_penalty if length_penalty is None else length_penalty,
        )
        if not need_weights:
            return GeneratorOutput(*found, {})
        # Decode the best answer once more: this returns the maps of the search.
        tokens = found.tokens[:, 0]  # (B, S)
        inputs = torch.cat((torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]), 1)
        is_word = (tokens != PAD)[:, None, :, None]
        maps = self.decode(pair, inputs, need_weights=True).maps
        return GeneratorOutput(*found, pair.maps | {name: weights * is_word for name, weights in maps.items()})
