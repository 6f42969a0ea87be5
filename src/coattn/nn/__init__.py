"""Tensors in, tensors out: attention, encoders, co-attention layers, heads and the model. Imports torch only."""

from .attention import MultiHeadAttention, attend
from .coattention import (
    AlternatingCoAttention,
    CoAttentionLayer,
    CoAttentionOutput,
    CoAttentionStack,
    DenseCoAttention,
    LayerOutput,
    ModularCoAttention,
    ParallelCoAttention,
    QuestionSelfAttention,
    RegionGuidedAttention,
)
from .heads import ClassifierHead, HeadOutput
from .model import VQAModel, VQAOutput
from .padding import OriginalPadding
from .question import PlainQuestionEncoder, Question, RecurrentQuestionEncoder
from .regions import RegionEncoder, RegionGeometryEncoder

__all__ = [
    "AlternatingCoAttention",
    "ClassifierHead",
    "CoAttentionLayer",
    "CoAttentionOutput",
    "CoAttentionStack",
    "DenseCoAttention",
    "HeadOutput",
    "LayerOutput",
    "ModularCoAttention",
    "MultiHeadAttention",
    "OriginalPadding",
    "ParallelCoAttention",
    "PlainQuestionEncoder",
    "Question",
    "QuestionSelfAttention",
    "RecurrentQuestionEncoder",
    "RegionEncoder",
    "RegionGeometryEncoder",
    "RegionGuidedAttention",
    "VQAModel",
    "VQAOutput",
    "attend",
]
