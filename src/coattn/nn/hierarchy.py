"""A question at three levels: words, phrases of up to three words, and the whole.

Letters: B batch, T tokens, E width of given embeddings, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Dropout
from .question import Question, TokenEmbedding
from .recurrence import Recurrences


class HierarchicalQuestionEncoder(nn.Module):
    """Word, phrase and question level (Lu et al. 2016, arXiv 1606.00061, section 3.2, eq. 1-2).

    With x the embedded words, zeros at padding and beyond both ends::

        word      w_t = tanh(x_t)
        phrase    p_t = tanh(max(W_1 w_t + b_1, W_2 w_{t-1..t} + b_2, W_3 w_{t-1..t+1} + b_3))
        question  q_t = LSTM(p_1 .. p_t)

    Differences from the paper, all as in the authors' code: tanh follows the embedding, and a window of words lies
    around its place instead of after it. The phrase level has values at padding too (those of the biases, and of the
    windows that reach a word), which every reader masks but the authors' parallel co-attention.

    Args:
        num_words: see `TokenEmbedding`.
        question_dim: see `TokenEmbedding`; given embeddings enter through a linear map.
        dim: width D of all three levels.
        num_layers: layers of the LSTM.
        dropout: dropout on the word and the phrase level, and between and after the layers of the LSTM.
    """

    def __init__(
        self,
        *,
        num_words: int | None = None,
        question_dim: int | None = None,
        dim: int,
        num_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_words, self.question_dim, self.dim = num_words, question_dim, dim
        self.num_layers, self.dropout = num_layers, dropout
        self.embedding = TokenEmbedding(num_words=num_words, question_dim=question_dim, dim=dim)
        self.windows = nn.ModuleList(nn.Conv1d(dim, dim, size, padding=size // 2) for size in (1, 2, 3))
        self.recurrences = Recurrences(dim, dim, num_layers=num_layers, dropout=dropout)
        self.drop = Dropout(dropout)

    def forward(self, question: Tensor, mask: Tensor) -> Question:
        """Encode `question` (B, T) or (B, T, E) with its mask (B, T), right-padded.

        The tokens are those of the question level, the summary its last state.
        """
        word = self.drop(self.embedding(question, mask).tanh())
        # A window of two over T places with one of padding at both ends gives T + 1: the last has no place.
        grams = [window(word.mT)[..., : word.shape[1]] for window in self.windows]  # each (B, D, T)
        phrase = self.drop(torch.stack(grams).amax(0).mT.tanh())
        tokens, summary = self.recurrences(phrase, mask)
        tokens = self.drop(tokens)
        return Question(tokens, (word, phrase, tokens), self.drop(summary))
