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
from .question import PlainQuestionEncoder, Question, RecurrentQuestionEncoder
from .regions import RegionEncoder

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
    "ParallelCoAttention",
    "PlainQuestionEncoder",
    "Question",
    "QuestionSelfAttention",
    "RecurrentQuestionEncoder",
    "RegionEncoder",
    "RegionGuidedAttention",
    "VQAModel",
    "VQAOutput",
    "attend",
]
