"""Tensors in, tensors out: attention, encoders, co-attention layers, heads and the model. Imports torch only."""

from .attention import AdditiveAttention, MultiHeadAttention, attend
from .coattention import (
    AlternatingCoAttention,
    CoAttentionLayer,
    CoAttentionOutput,
    CoAttentionStack,
    DenseCoAttention,
    LayerOutput,
    ModularCoAttention,
    ParallelCoAttention,
    QuestionGate,
    QuestionSelfAttention,
    RegionGuidedAttention,
)
from .decoder import LSTMDecoder, TransformerDecoder
from .heads import ClassifierHead, HeadOutput
from .model import GeneratorOutput, VQAGenerator, VQAModel, VQAOutput
from .padding import OriginalPadding
from .question import PlainQuestionEncoder, Question, RecurrentQuestionEncoder
from .regions import PlainRegionEncoder, RegionEncoder, RegionGeometryEncoder

__all__ = [
    "AdditiveAttention",
    "AlternatingCoAttention",
    "ClassifierHead",
    "CoAttentionLayer",
    "CoAttentionOutput",
    "CoAttentionStack",
    "DenseCoAttention",
    "GeneratorOutput",
    "HeadOutput",
    "LSTMDecoder",
    "LayerOutput",
    "ModularCoAttention",
    "MultiHeadAttention",
    "OriginalPadding",
    "ParallelCoAttention",
    "PlainQuestionEncoder",
    "PlainRegionEncoder",
    "Question",
    "QuestionGate",
    "QuestionSelfAttention",
    "RecurrentQuestionEncoder",
    "RegionEncoder",
    "RegionGeometryEncoder",
    "RegionGuidedAttention",
    "TransformerDecoder",
    "VQAGenerator",
    "VQAModel",
    "VQAOutput",
    "attend",
]
