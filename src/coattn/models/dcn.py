"""DCN (Nguyen & Okatani 2018, arXiv 1804.00775)."""

from __future__ import annotations

from torch import nn

from coattn.nn import (
    CoAttentionStack,
    DenseCoAttention,
    RegionEncoder,
    SkipRecurrentQuestionEncoder,
    SummaryHead,
    VQAModel,
)

from .original_padding import OriginalPadding


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
    standardised: bool = False,
    faithful: bool = False,
    padded_tokens: int | None = None,
    padded_regions: int | None = None,
) -> VQAModel:
    """DCN (Nguyen & Okatani 2018, arXiv 1804.00775): dense symmetric co-attention, on regions.

    Words and what a bidirectional LSTM makes of them (`SkipRecurrentQuestionEncoder`); regions mapped and brought to
    length 1; `DenseCoAttention` (eq. 2-9), `num_layers` times; each side pooled by several attentions, and an MLP over
    both (`SummaryHead`). Weights start as the authors' do: normal after Glorot & Bengio 2010, biases 0 but for the
    LSTM's forget gates, whose two biases sum to 2. The numbers are the defaults of the authors' code, save that there
    regions are 2048 wide (`image_dim`). Published: on VQA v1 and v2, in the paper's tables; no number is repeated here,
    because none was at hand to check.

    Deliberate differences: the authors read frozen GloVe vectors, which is `question_dim`, or `num_words` with word
    vectors and their embedding frozen; words that start from nothing are learnt here. The variant on convolution maps
    is not made. Padding is masked in the original too; it differs only for an image without regions, which here pools
    to zeros (`faithful`: attends to its padding; the original does so in the last pooling only).

    Args:
        region_dim: width of the region features.
        num_answers: size of the answer vocabulary.
        num_words: size of the question vocabulary, for token ids.
        question_dim: width of given token embeddings. Exactly one of the two is set.
        embedding_dim: width of word embeddings.
        recurrent_dim: width of the LSTM, both directions together.
        recurrent_layers: layers of the LSTM.
        dim: width of the question tokens.
        image_dim: width of the regions; `dim` when None.
        num_layers: co-attention layers.
        num_heads: attention heads of each layer; must divide the smaller width.
        num_nothing: learned rows that stand for nothing to attend to, on each side.
        num_glimpses: attention maps of each pooling.
        dropout: dropout in the co-attention and the classifier.
        recurrent_dropout: dropout around the LSTM.
        standardised: z-score region features with statistics of the training images, which the original does not.
        faithful: see above.
        padded_tokens: see `coattn.models`; the original pads to the longest question of a batch.
        padded_regions: see `coattn.models`.

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
        region_encoder=RegionEncoder(region_dim, dim=image_dim, norm="unit", standardised=standardised),
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
    """The authors' start of a module; the rows to attend to nothing and the LSTM's states begin so by themselves."""
    if not isinstance(module, nn.Linear | nn.LSTM):
        return
    for name, parameter in module.named_parameters():
        if name.startswith("weight"):
            nn.init.xavier_normal_(parameter)
        else:
            nn.init.zeros_(parameter)
            if isinstance(module, nn.LSTM):  # gates: input, forget, cell, output
                nn.init.ones_(parameter.chunk(4)[1])
