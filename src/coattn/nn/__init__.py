"""Tensors in, tensors out: attention, encoders, co-attention layers, heads and the model. Imports torch only."""

from .attention import AdditiveAttention, MultiHeadAttention, attend
from .coattention import (
    AlternatingCoAttention,
    AlternatingPooling,
    AttentionLayer,
    CoAttentionLayer,
    CoAttentionOutput,
    CoAttentionPooling,
    CoAttentionStack,
    DenseCoAttention,
    GuidedAttention,
    LayerOutput,
    ModularCoAttention,
    ParallelCoAttention,
    ParallelPooling,
    PoolingOutput,
    QuestionGate,
    QuestionSelfAttention,
    SelfGuidedAttention,
)
from .decoder import LSTMDecoder, TransformerDecoder
from .heads import ClassifierHead, HeadOutput
from .maps import name_maps
from .model import GeneratorOutput, VQAGenerator, VQAModel, VQAOutput
from .question import PlainQuestionEncoder, Question, RecurrentQuestionEncoder
from .regions import PlainRegionEncoder, RegionEncoder

__all__ = [
    "AdditiveAttention",
    "AlternatingCoAttention",
    "AlternatingPooling",
    "AttentionLayer",
    "ClassifierHead",
    "CoAttentionLayer",
    "CoAttentionOutput",
    "CoAttentionPooling",
    "CoAttentionStack",
    "DenseCoAttention",
    "GeneratorOutput",
    "GuidedAttention",
    "HeadOutput",
    "LSTMDecoder",
    "LayerOutput",
    "ModularCoAttention",
    "MultiHeadAttention",
    "ParallelCoAttention",
    "ParallelPooling",
    "PlainQuestionEncoder",
    "PlainRegionEncoder",
    "PoolingOutput",
    "Question",
    "QuestionGate",
    "QuestionSelfAttention",
    "RecurrentQuestionEncoder",
    "RegionEncoder",
    "SelfGuidedAttention",
    "TransformerDecoder",
    "VQAGenerator",
    "VQAModel",
    "VQAOutput",
    "attend",
    "name_maps",
]
