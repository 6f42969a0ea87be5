"""How much each region and each word matters for an answer: any method of `METHODS`, with many parts grouped.

Letters: R regions, T tokens, W words, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coattn._internal.hints import did_you_mean
from coattn.explain.ablation import Ablation
from coattn.explain.maps import Attribution
from coattn.explain.methods import METHODS, Method
from coattn.nn.maps import parse
from coattn.text.reading import Word

MAX_PARTS = 64  # more regions or words are grouped


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"there is no method of explanation {name!r}{did_you_mean(name, METHODS)}")
    return METHODS[name]


def attribute(
    method: str, ablation: Ablation, answer: str, words: Sequence[Word], maps: Mapping[str, np.ndarray]
) -> Attribution:
    """Explain an answer by one method.

    Args:
        method: a name of `METHODS`.
        ablation: the model, image, question and answer.
        answer: its text.
        words: the words of the question.
        maps: the attention maps of the same pass; needed by methods that read them.

    Raises:
        ValueError: no such method, or the model has no maps for it.
    """
    chosen = find_method(method)
    num_regions, num_tokens = len(ablation.regions), len(ablation.question)
    if chosen.from_maps is not None:
        regions = chosen.from_maps(maps, "regions")
        has_words = any(parse(name).columns == "question" and parse(name).rows in (None, "answer") for name in maps)
        tokens = chosen.from_maps(maps, "question") if has_words else np.zeros(num_tokens)
        return Attribution(method, answer, regions, np.array([tokens[list(w.places)].sum() for w in words]), False, 1)
    region_groups = _region_groups(ablation)
    by_region, region_passes = _group_values(chosen, ablation.without_regions, region_groups, num_regions)
    # Tokens that the text encoder adds stay; the pieces of a word are removed together.
    removable = [word.places for word in words if not word.special]
    parts = np.array_split(np.arange(len(removable)), min(len(removable), MAX_PARTS)) if removable else []
    word_groups = [np.array([place for number in part for place in removable[number]]) for part in parts]
    by_token, word_passes = _group_values(chosen, ablation.without_words, word_groups, num_tokens)
    notes = [
        f"{count} {kind} in {len(groups)} groups"
        for kind, count, groups in (("regions", num_regions, region_groups), ("words", len(removable), word_groups))
        if len(groups) < count
    ]
    by_word = np.array([by_token[word.places[0]] for word in words])
    return Attribution(method, answer, by_region, by_word, True, region_passes + word_passes, ", ".join(notes))


def region_values(method: str, ablation: Ablation, maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """The value (R,) of each region alone, without those of the words; see `attribute`."""
    chosen = find_method(method)
    if chosen.from_maps is not None:
        return chosen.from_maps(maps, "regions")
    groups = _region_groups(ablation)
    return _group_values(chosen, ablation.without_regions, groups, len(ablation.regions))[0]


def _region_groups(ablation: Ablation) -> list[np.ndarray]:
    """The regions, or at most `MAX_PARTS` groups of them: of neighbors, or of consecutive ones without boxes."""
    if ablation.boxes is not None:
        return neighbors(ablation.boxes.cpu().numpy(), MAX_PARTS)
    numbers = np.arange(len(ablation.regions))
    return np.array_split(numbers, min(len(numbers), MAX_PARTS)) if len(numbers) else []


def _group_values(
    method: Method, measure: Callable[[np.ndarray], np.ndarray], groups: Sequence[np.ndarray], num_parts: int
) -> tuple[np.ndarray, int]:
    """The value (n,) of each part, which is that of its group, and the passes it took; 0 for a part in no group."""
    values = np.zeros(num_parts)
    if not groups:
        return values, 0
    member = np.zeros((len(groups), num_parts), np.float32)
    for number, group in enumerate(groups):
        member[number, group] = 1
    always = ~member.any(0)
    passes = 0

    def value(kept: np.ndarray) -> np.ndarray:
        nonlocal passes
        passes += len(kept)
        return measure((kept @ member > 0) | always)

    assert method.from_value is not None
    for group, share in zip(groups, method.from_value(value, len(groups)), strict=True):
        values[group] = share
    return values, passes


def neighbors(boxes: np.ndarray, most: int) -> list[np.ndarray]:
    """Boxes (R, 4) in at most `most` groups of near centers, as lists of their numbers; each alone if R is not more.

    Group centers are chosen one by one, each the box farthest from those before it (Gonzalez 1985); every box joins the
    nearest.
    """
    if len(boxes) <= most:
        return [np.array([number]) for number in range(len(boxes))]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    chosen = [0]
    distance = np.linalg.norm(centers - centers[0], axis=1)
    while len(chosen) < most:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(centers - centers[chosen[-1]], axis=1))
    nearest = np.linalg.norm(centers[:, None] - centers[chosen], axis=2).argmin(1)
    return [np.flatnonzero(nearest == group) for group in range(most) if (nearest == group).any()]
