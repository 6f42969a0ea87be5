"""What co-attention is compared with."""

from .question_only import QuestionOnlyHead, UnseenRegions

__all__ = ["QuestionOnlyHead", "UnseenRegions"]
