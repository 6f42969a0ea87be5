"""DCN (Nguyen & Okatani 2018, arXiv 1804.00775): a stack of dense symmetric co-attention layers.

Letters: B batch, T question tokens, R regions, D model width, G glimpses, A answers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coattn.nn import (
    CoAttentionOutput,
    CoAttentionStack,
    DenseCoAttention,
    HeadOutput,
    Question,
    RegionEncoder,
    VQAModel,
)
from coattn.nn.layers import MLP, Dropout, GlimpsePooling, masked_mean
from coattn.nn.maps import POOLING, name_maps
from coattn.nn.question import TokenEmbedding
from coattn.nn.recurrence import Recurrences

from .original_padding import OriginalPadding


class SkipRecurrentQuestionEncoder(nn.Module):
    """`linear(dropout([x, biLSTM(x)]))`, x the embedded words: DCN's language extraction (arXiv 1804.00775).

    The LSTM starts from learned states. Given embeddings enter unchanged. Differences from the authors' code: padding
    is zeros (theirs keeps the last map's bias there, which nothing reads), and lengths are not copied to the host.

    Args:
        num_words: see `TokenEmbedding`.
        question_dim: see `TokenEmbedding`.
        embedding_dim: width of the embedded words; unused with given embeddings.
        hidden_dim: width of the LSTM, both directions together.
        dim: width D of the token vectors.
        num_layers: layers of the LSTM.
        dropout: dropout between the layers and on the concatenation.
    """

    def __init__(
        self,
        *,
        num_words: int | None = None,
        question_dim: int | None = None,
        embedding_dim: int = 300,
        hidden_dim: int,
        dim: int,
        num_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_words, self.question_dim, self.embedding_dim = num_words, question_dim, embedding_dim
        self.hidden_dim, self.dim, self.num_layers, self.dropout = hidden_dim, dim, num_layers, dropout
        self.embedding = TokenEmbedding(
            num_words=num_words, question_dim=question_dim, dim=embedding_dim if question_dim is None else None
        )
        width = embedding_dim if question_dim is None else question_dim
        self.recurrences = Recurrences(
            width, hidden_dim, bidirectional=True, num_layers=num_layers, dropout=dropout, learned_start=True
        )
        self.merge = nn.Linear(width + hidden_dim, dim)
        self.drop = Dropout(dropout)

    def forward(self, question: Tensor, mask: Tensor) -> Question:
        """Encode `question` (B, T) or (B, T, E) with its mask (B, T), right-padded; the summary is the tokens' mean."""
        words = self.embedding(question, mask).to(self.merge.weight.dtype)  # (B, T, E)
        states, _ = self.recurrences(words, mask)  # (B, T, hidden_dim)
        tokens = self.merge(self.drop(torch.cat((words, states), -1))) * mask[:, :, None]
        return Question(tokens, (tokens,), masked_mean(tokens, mask))


class SummaryHead(nn.Module):
    """Pool each side by the mean of several attentions, concatenate, MLP: DCN's prediction layer (arXiv 1804.00775).

    Args:
        question_dim: width of the question tokens.
        region_dim: width of the regions.
        num_answers: size A of the answer vocabulary.
        hidden_dim: inner width of the classifying MLP; half of both sides together when None.
        num_glimpses: attention maps G per side.
        dropout: dropout inside the classifying MLP.
    """

    def __init__(
        self,
        question_dim: int,
        region_dim: int,
        num_answers: int,
        *,
        hidden_dim: int | None = None,
        num_glimpses: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question_dim, self.region_dim, self.num_answers = question_dim, region_dim, num_answers
        self.hidden_dim, self.num_glimpses, self.dropout = hidden_dim, num_glimpses, dropout
        self.question_pooling, self.region_pooling = (
            GlimpsePooling(width, hidden_dim=width, num_glimpses=num_glimpses) for width in (question_dim, region_dim)
        )
        joint_dim = question_dim + region_dim
        hidden_dim = joint_dim // 2 if hidden_dim is None else hidden_dim
        self.classify = MLP(joint_dim, hidden_dim=hidden_dim, output_dim=num_answers, dropout=dropout)

    def forward(
        self, attended: CoAttentionOutput, question: Question, question_mask: Tensor, region_mask: Tensor
    ) -> HeadOutput:
        """Score the answers; arguments and maps as `ClassifierHead.forward`."""
        q, question_map = self.question_pooling(attended.question, question_mask)
        v, region_map = self.region_pooling(attended.regions, region_mask)
        # Both (B, G * D) -> the mean over glimpses (B, D).
        q, v = (glimpses.unflatten(1, (self.num_glimpses, -1)).mean(1) for glimpses in (q, v))
        logits = self.classify(torch.cat((v, q), -1))
        return HeadOutput(logits, name_maps(POOLING, question=question_map, regions=region_map))


def dcn(
    *,
    region_dim: int,
    num_answers: int,
    num_words: int | None = None,
    question_dim: int | None = None,
    embedding_dim: int = 300,
    recurrent_dim: int = 900,
    recurrent_layers: int = 2,
    dim: int = 1024,
    image_dim: int | None = None,
    num_layers: int = 5,
    num_heads: int = 4,
    num_nothing: int = 3,
    num_glimpses: int = 4,
    dropout: float = 0.3,
    recurrent_dropout: float = 0.1,
    standardized: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """DCN (Nguyen & Okatani 2018, arXiv 1804.00775): dense symmetric co-attention, on regions.

    Words and the states of a bidirectional LSTM over them (`SkipRecurrentQuestionEncoder`); regions mapped to unit
    vectors; `DenseCoAttention`, `num_layers` times; each side pooled by several attentions, and an MLP over
    both (`SummaryHead`). Weights start as the authors' do: normal after Glorot & Bengio 2010, biases 0 but for the
    LSTM's forget gates, whose two biases sum to 2. The numbers are the defaults of the authors' code, except that its
    regions are 2048 wide (`image_dim`). The paper's tables report VQA v1 and v2; no number is repeated here, because
    none could be checked.

    Deliberate differences: the authors read frozen GloVe vectors, which here means `question_dim`, or `num_words` with
    loaded and frozen word vectors; otherwise the word vectors are learned. The variant on convolution maps is left out.
    Padding is masked in the original too. The only difference is an image without regions: here it pools to zeros, with
    `faithful` it attends to its padding (the original does so in the last pooling only).

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Give exactly one of the two.
        embedding_dim: width of word embeddings.
        recurrent_dim: width of the LSTM, both directions together.
        recurrent_layers: layers of the LSTM.
        dim: width of the question tokens.
        image_dim: width of the regions; `dim` when None.
        num_layers: co-attention layers.
        num_heads: attention heads of each layer; must divide the smaller width.
        num_nothing: learned rows on each side, to which a word or region attends instead of the other side.
        num_glimpses: attention maps of each pooling.
        dropout: dropout in the co-attention and the classifier.
        recurrent_dropout: dropout around the LSTM.
        standardized: z-score region features with statistics of the training images; the original does not.
        faithful: pad as the authors' code does.
        padded_tokens: length to which `faithful` pads or cuts questions; None, as in the original, keeps the longest of
            the batch.
        padded_regions: number to which `faithful` pads or cuts regions; None keeps their number.

    Raises:
        ValueError: sizes that do not fit together.
    """
    image_dim = dim if image_dim is None else image_dim
    model = VQAModel(
        SkipRecurrentQuestionEncoder(
            num_words=num_words,
            question_dim=question_dim,
            embedding_dim=embedding_dim,
            hidden_dim=recurrent_dim,
            dim=dim,
            num_layers=recurrent_layers,
            dropout=recurrent_dropout,
        ),
        region_encoder=RegionEncoder(region_dim, dim=image_dim, norm="unit", standardized=standardized),
        coattention=CoAttentionStack(
            [
                DenseCoAttention(dim, image_dim, num_heads=num_heads, num_nothing=num_nothing, dropout=dropout)
                for _ in range(num_layers)
            ]
        ),
        head=SummaryHead(dim, image_dim, num_answers, num_glimpses=num_glimpses, dropout=dropout),
    )
    model.apply(_start)
    return OriginalPadding(model, num_tokens=padded_tokens, num_regions=padded_regions) if faithful else model


def _start(module: nn.Module) -> None:
    """Initialize a module as the authors do. `num_nothing` rows and LSTM states are initialized alike when built."""
    if not isinstance(module, nn.Linear | nn.LSTM):
        return
    for name, parameter in module.named_parameters():
        if name.startswith("weight"):
            nn.init.xavier_normal_(parameter)
        else:
            nn.init.zeros_(parameter)
            if isinstance(module, nn.LSTM):  # gates: input, forget, cell, output
                nn.init.ones_(parameter.chunk(4)[1])
