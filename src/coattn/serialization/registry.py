"""The classes that a saved model may contain, and the conversion of a model to a config and back."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from coattn import nn as bricks
from coattn.models.ban import BilinearAttention, TokenSumHead
from coattn.models.butd import ConcatenationScore, ProductHead, ProductScore, TopDownAttention
from coattn.models.dcn import SkipRecurrentQuestionEncoder, SummaryHead
from coattn.models.hiecoatt import HierarchicalCoAttention, HierarchicalQuestionEncoder, RecursiveHead
from coattn.models.mcan import RegionGeometryEncoder
from coattn.models.mfb import FactorizedCoAttention, FactorizedHead
from coattn.models.mmnasnet import MMNasNetCoAttention, RelationEncoder
from coattn.models.original_padding import OriginalPadding
from coattn.models.question_only import QuestionOnlyHead, UnseenRegions
from coattn.text.encoders import FinetunedQuestionEncoder

# The allow-list. A config that names any other class is refused. A program may add classes, see docs/models.md.
BRICKS: dict[str, type[nn.Module]] = {
    brick.__name__: brick
    for brick in (
        bricks.VQAModel,
        bricks.VQAGenerator,
        OriginalPadding,
        bricks.PlainQuestionEncoder,
        bricks.RecurrentQuestionEncoder,
        SkipRecurrentQuestionEncoder,
        HierarchicalQuestionEncoder,
        FinetunedQuestionEncoder,
        bricks.RegionEncoder,
        RegionGeometryEncoder,
        bricks.PlainRegionEncoder,
        bricks.CoAttentionStack,
        bricks.ParallelCoAttention,
        bricks.AlternatingCoAttention,
        bricks.DenseCoAttention,
        bricks.ModularCoAttention,
        bricks.QuestionGate,
        bricks.QuestionSelfAttention,
        bricks.SelfGuidedAttention,
        bricks.GuidedAttention,
        HierarchicalCoAttention,
        bricks.ParallelPooling,
        bricks.AlternatingPooling,
        bricks.ClassifierHead,
        bricks.LSTMDecoder,
        bricks.TransformerDecoder,
        RelationEncoder,
        MMNasNetCoAttention,
        SummaryHead,
        RecursiveHead,
        UnseenRegions,
        QuestionOnlyHead,
        TopDownAttention,
        ConcatenationScore,
        ProductScore,
        ProductHead,
        BilinearAttention,
        TokenSumHead,
        FactorizedCoAttention,
        FactorizedHead,
    )
}


def describe(module: nn.Module) -> dict[str, Any]:
    """The class name of a brick and its constructor arguments, including nested bricks.

    Only attributes are read: a brick keeps each constructor argument as an attribute of the same name.

    Raises:
        ValueError: a class that is not in `BRICKS`, or an argument that is not kept or is neither plain nor a brick.
    """
    name = next((name for name, brick in BRICKS.items() if brick is type(module)), None)
    if name is None:
        raise ValueError(
            f"{type(module).__name__} is not a brick of coattn: a model directory cannot hold it; add a class of your "
            "own to coattn.serialization.registry.BRICKS"
        )
    if forgotten := [key for key in _parameters(type(module)) if not hasattr(module, key)]:
        raise ValueError(f"{name} does not keep its constructor argument {forgotten[0]!r} as an attribute of that name")
    arguments = {key: _described(getattr(module, key), f"{name}.{key}") for key in _parameters(type(module))}
    return {"class": name, **arguments}


def _described(value: Any, where: str) -> Any:
    if isinstance(value, nn.ModuleList | list | tuple):
        return [_described(item, where) for item in value]
    if isinstance(value, nn.Module):
        return describe(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{where}: a model directory cannot hold a {type(value).__name__}")


def build(config: Any, *, where: str = "model") -> nn.Module:
    """Build the brick that `config` describes, newly initialized: the inverse of `describe`.

    Args:
        config: as `describe` returns it.
        where: the file and key at the beginning of messages.

    Raises:
        ValueError: an unknown class, a missing or unknown argument, or a value of the wrong type.
    """
    name = config.get("class") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in BRICKS:
        raise ValueError(
            f"{where}: the class {name!r} is not one of coattn's; add a class of your own to "
            "coattn.serialization.registry.BRICKS first"
        )
    brick = BRICKS[name]
    arguments = {key: value for key, value in config.items() if key != "class"}
    check_keys(arguments, _parameters(brick), f"{where} ({name})")
    hints = typing.get_type_hints(brick.__init__)
    for key, value in arguments.items():
        arguments[key] = _built(value, f"{where}.{key}")
        hint = hints.get(key, Any)
        if not fits(arguments[key], hint):
            raise ValueError(f"{where}.{key}: {value!r:.80} is not of the type that {name} takes ({hint})")
    try:
        return brick(**arguments)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{where} ({name}): {error}") from error


def _built(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return build(value, where=where)
    if isinstance(value, list):
        return [_built(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _parameters(brick: type[nn.Module]) -> list[str]:
    return list(inspect.signature(brick).parameters)


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` has the type `hint`, for the few kinds of hints that constructors of bricks have."""
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        return isinstance(value, list) and (not arguments or all(fits(item, arguments[0]) for item in value))
    if getattr(hint, "_is_protocol", False):
        return isinstance(value, nn.Module)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def check_keys(found: Mapping[str, Any], expected: Iterable[str], where: str) -> None:
    """Raise ValueError, naming the keys, unless `found` has the `expected` keys and no others."""
    expected = list(expected)
    if missing := [key for key in expected if key not in found]:
        raise ValueError(f"{where}: lacks {', '.join(missing)}")
    if unknown := [key for key in found if key not in expected]:
        raise ValueError(f"{where}: has the unknown {', '.join(unknown)}; known are {', '.join(expected)}")
