"""MCAN as published code trains it, to compare with: everything padded, float32, explicit attention, a file per image.

The same model as `coattn.models.mcan_small` (a test gives both the same weights and compares the logits), with the
habits of the field's code bases (openvqa, mcan-vqa): every image is padded to 100 regions and every question to 14
tokens; masks are found by looking for rows of zeros; the attention map is computed, filled with -1e9 and kept;
features come from an .npz file per image, opened for each sample by workers of a DataLoader; targets are dense, made
per sample; the loss is read back after each step. Parameters have openvqa's names, so that our importer reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

NUM_REGIONS, NUM_TOKENS = 100, 14


class Sizes(NamedTuple):
    """MCAN's sizes; those of its authors' small model if not given."""

    num_words: int = 20_000
    num_answers: int = 3129
    region_dim: int = 2048
    embedding_dim: int = 300
    dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    pooling_dim: int = 512
    joint_dim: int = 1024
    dropout: float = 0.1


class LayerNorm(nn.Module):
    """`(x - mean) / (std + eps)`, with the unbiased standard deviation."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.a_2, self.b_2, self.eps = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.a_2 * centred / (x.std(-1, keepdim=True) + self.eps) + self.b_2


class FC(nn.Module):
    """Linear, ReLU, dropout."""

    def __init__(self, input_dim: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(input_dim, output_dim), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(F.relu(self.linear(x)))


class MLP(nn.Module):
    """FC, linear."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc, self.linear = FC(input_dim, hidden_dim, dropout), nn.Linear(hidden_dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.fc(x))


class FeedForward(nn.Module):
    """An MLP back to the width of its input."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mlp = MLP(sizes.dim, sizes.ffn_dim, sizes.dim, sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Attention(nn.Module):
    """Multi-head attention, the map written out. `mask` (B, 1, 1, S) is True at padding."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.num_heads = sizes.num_heads
        self.linear_q, self.linear_k, self.linear_v, self.linear_merge = (
            nn.Linear(sizes.dim, sizes.dim) for _ in range(4)
        )
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, queries: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        q = self._heads(self.linear_q(queries))
        k, v = self._heads(self.linear_k(source)), self._heads(self.linear_v(source))
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        weights = self.dropout(F.softmax(scores.masked_fill(mask, -1e9), dim=-1))
        out = torch.matmul(weights, v).transpose(1, 2).contiguous()
        return self.linear_merge(out.view(len(queries), -1, queries.shape[-1]))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, self.num_heads, x.shape[-1] // self.num_heads).transpose(1, 2)


class SA(nn.Module):
    """Self-attention of the question."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mhatt, self.ffn = Attention(sizes), FeedForward(sizes)
        self.dropout1, self.dropout2 = nn.Dropout(sizes.dropout), nn.Dropout(sizes.dropout)
        self.norm1, self.norm2 = LayerNorm(sizes.dim), LayerNorm(sizes.dim)

    def forward(self, y: Tensor, y_mask: Tensor) -> Tensor:
        y = self.norm1(y + self.dropout1(self.mhatt(y, y, y_mask)))
        return self.norm2(y + self.dropout2(self.ffn(y)))


class SGA(nn.Module):
    """Self-attention of the regions, then attention to the question."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mhatt1, self.mhatt2, self.ffn = Attention(sizes), Attention(sizes), FeedForward(sizes)
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(sizes.dropout) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = (LayerNorm(sizes.dim) for _ in range(3))

    def forward(self, x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout1(self.mhatt1(x, x, x_mask)))
        x = self.norm2(x + self.dropout2(self.mhatt2(x, y, y_mask)))
        return self.norm3(x + self.dropout3(self.ffn(x)))


class EncoderDecoder(nn.Module):
    """All SA layers, then all SGA layers, guided by the last SA layer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.enc_list = nn.ModuleList(SA(sizes) for _ in range(sizes.num_layers))
        self.dec_list = nn.ModuleList(SGA(sizes) for _ in range(sizes.num_layers))

    def forward(self, y: Tensor, x: Tensor, y_mask: Tensor, x_mask: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.enc_list:
            y = layer(y, y_mask)
        for layer in self.dec_list:
            x = layer(x, y, x_mask, y_mask)
        return y, x


class AttFlat(nn.Module):
    """A sequence to one vector by learned attention."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mlp = MLP(sizes.dim, sizes.pooling_dim, 1, sizes.dropout)
        self.linear_merge = nn.Linear(sizes.dim, sizes.joint_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.mlp(x).masked_fill(mask.squeeze(1).squeeze(1).unsqueeze(2), -1e9)
        return self.linear_merge((F.softmax(scores, dim=1) * x).sum(dim=1))


class MCAN(nn.Module):
    """Question ids (B, 14) and regions (B, 100, D) -> logits (B, A)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.num_words, sizes.embedding_dim)
        self.lstm = nn.LSTM(sizes.embedding_dim, sizes.dim, batch_first=True)
        self.adapter = nn.ModuleDict({"frcn_linear": nn.Linear(sizes.region_dim, sizes.dim)})
        self.backbone = EncoderDecoder(sizes)
        self.attflat_lang, self.attflat_img = AttFlat(sizes), AttFlat(sizes)
        self.proj_norm = LayerNorm(sizes.joint_dim)
        self.proj = nn.Linear(sizes.joint_dim, sizes.num_answers)

    def forward(self, question: Tensor, regions: Tensor) -> Tensor:
        y_mask, x_mask = padding(question.unsqueeze(2)), padding(regions)
        y, _ = self.lstm(self.embedding(question))
        x = self.adapter["frcn_linear"](regions)
        y, x = self.backbone(y, x, y_mask, x_mask)
        return self.proj(self.proj_norm(self.attflat_lang(y, y_mask) + self.attflat_img(x, x_mask)))


def padding(rows: Tensor) -> Tensor:
    """(B, 1, 1, N), True where a row of `rows` (B, N, D) is all zeros."""
    return (torch.sum(torch.abs(rows), dim=-1) == 0).unsqueeze(1).unsqueeze(2)


class Sample(NamedTuple):
    """One question: regions (100, D) float32, token ids (14,), dense soft scores (A,); or a batch of them."""

    regions: Tensor
    question: Tensor
    target: Tensor


class Samples(Dataset[Sample]):
    """One question per item: opens its image's .npz, pads, makes dense targets.

    Args:
        files: the .npz of each question's image, its features under "x".
        questions: token ids of each question.
        answers: (answer number, soft score) pairs of each question.
        num_answers: width of the targets.
    """

    def __init__(
        self,
        files: Sequence[Path],
        questions: Sequence[np.ndarray],
        answers: Sequence[Sequence[tuple[int, float]]],
        num_answers: int,
    ) -> None:
        self.files, self.questions, self.answers, self.num_answers = files, questions, answers, num_answers

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Sample:
        with np.load(self.files[index]) as file:
            regions = padded(file["x"][:NUM_REGIONS], NUM_REGIONS)
        target = np.zeros(self.num_answers, np.float32)
        for answer, score in self.answers[index]:
            target[answer] = score
        question = padded(self.questions[index][:NUM_TOKENS], NUM_TOKENS)
        return Sample(torch.from_numpy(regions), torch.from_numpy(question), torch.from_numpy(target))


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows (n, ...) with zeros behind, up to `size`."""
    return np.pad(rows, [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def loader(samples: Samples, *, batch_size: int, num_workers: int, device: str) -> DataLoader[Sample]:
    """Batches in random order."""
    return DataLoader(
        samples, batch_size, shuffle=True, num_workers=num_workers, pin_memory=device == "cuda", drop_last=True
    )


def forever(batches: DataLoader[Sample]) -> Iterator[Sample]:
    """Epoch after epoch."""
    while True:
        yield from batches


class Trainer:
    """The loop: summed binary cross-entropy, Adam."""

    def __init__(self, sizes: Sizes, batches: Iterator[Sample], device: str) -> None:
        self.model, self.device, self.batches = MCAN(sizes).to(device).train(), device, batches
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)
        self.criterion = nn.BCEWithLogitsLoss(reduction="sum")

    def step(self) -> int:
        """Take one optimizer step, and return its number of questions."""
        batch = next(self.batches)
        regions, question, target = (tensor.to(self.device) for tensor in batch)
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(question, regions), target)
        loss.backward()
        self.loss = loss.item()
        self.optimizer.step()
        return len(question)
