"""The co-attention layers under one signature, and their stack."""

from .alternating import AlternatingCoAttention
from .base import CoAttentionLayer, LayerOutput
from .dense import DenseCoAttention
from .gate import QuestionGate
from .modular import ModularCoAttention, QuestionSelfAttention, RegionGuidedAttention
from .parallel import ParallelCoAttention
from .stack import CoAttentionOutput, CoAttentionStack

__all__ = [
    "AlternatingCoAttention",
    "CoAttentionLayer",
    "CoAttentionOutput",
    "CoAttentionStack",
    "DenseCoAttention",
    "LayerOutput",
    "ModularCoAttention",
    "ParallelCoAttention",
    "QuestionGate",
    "QuestionSelfAttention",
    "RegionGuidedAttention",
]
