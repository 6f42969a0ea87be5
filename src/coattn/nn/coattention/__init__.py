"""The co-attention layers under one signature, their stack, and the poolings of papers."""

from .alternating import AlternatingCoAttention, AlternatingPooling
from .base import AttentionLayer, CoAttentionLayer, CoAttentionPooling, LayerOutput, PoolingOutput
from .dense import DenseCoAttention
from .gate import QuestionGate
from .modular import GuidedAttention, ModularCoAttention, QuestionSelfAttention, SelfGuidedAttention
from .parallel import ParallelCoAttention, ParallelPooling
from .stack import CoAttentionOutput, CoAttentionStack

__all__ = [
    "AlternatingCoAttention",
    "AlternatingPooling",
    "AttentionLayer",
    "CoAttentionLayer",
    "CoAttentionOutput",
    "CoAttentionPooling",
    "CoAttentionStack",
    "DenseCoAttention",
    "GuidedAttention",
    "LayerOutput",
    "ModularCoAttention",
    "ParallelCoAttention",
    "ParallelPooling",
    "PoolingOutput",
    "QuestionGate",
    "QuestionSelfAttention",
    "SelfGuidedAttention",
]
