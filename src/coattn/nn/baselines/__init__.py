"""What co-attention is compared with."""

from .ban import BilinearAttention, TokenSumHead
from .butd import ConcatenationScore, ProductHead, ProductScore, TopDownAttention
from .mfb import FactorizedCoAttention, FactorizedHead
from .mmnasnet import MMNasNetCoAttention, RelatedRegions, RelationEncoder
from .question_only import QuestionOnlyHead, UnseenRegions

__all__ = [
    "BilinearAttention",
    "ConcatenationScore",
    "FactorizedCoAttention",
    "FactorizedHead",
    "MMNasNetCoAttention",
    "ProductHead",
    "ProductScore",
    "QuestionOnlyHead",
    "RelatedRegions",
    "RelationEncoder",
    "TokenSumHead",
    "TopDownAttention",
    "UnseenRegions",
]
