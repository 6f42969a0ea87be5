"""What co-attention is compared with."""

from .mmnasnet import MMNasNetCoAttention, RelatedRegions, RelationEncoder
from .question_only import QuestionOnlyHead, UnseenRegions

__all__ = [
    "MMNasNetCoAttention",
    "QuestionOnlyHead",
    "RelatedRegions",
    "RelationEncoder",
    "UnseenRegions",
]
