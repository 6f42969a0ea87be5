"""Reasons to doubt an answer, and when to withhold it.

An answer is doubted for four reasons:

(a) its confidence does not keep the wished risk, by the model's risk certificate (only if a risk is wished for);
(b) its image is unlike the training images, by the model's index of them;
(c) its question has content words that the model does not know;
(d) its question is longer than any training question, by the model's vocabulary.

With a wished risk, (a), (b), (d) and more than one unknown word withhold the answer. A single unknown word is only
named, unless the model knows no other word of the question. Without a wished risk all reasons are warnings.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self
from weakref import WeakKeyDictionary

import numpy as np

from coattn._internal.files import atomic_path, read_json
from coattn.datasets.doubt import Doubt
from coattn.explain.answers import Answer, Answers
from coattn.explain.image_index import QUANTILE, ImageIndex, mean_features
from coattn.metrics.certificate import Certificate, certified_threshold
from coattn.serialization.files import CERTIFICATE, CONFIG, IMAGE_INDEX
from coattn.serialization.sections import write_section
from coattn.text.vocabulary import Vocabulary, knows_no_word, unknown_words

SECTION = "When to believe it"
UNLIKE = "The image is unlike the images that the model was trained on."
TOO_LONG = "The question has more words than any training question."


class EncodedImage(Protocol):
    """An image of `coattn.Predictor` or of `coattn.runtime.Predictor`."""

    @property
    def array(self) -> np.ndarray:
        """Its features (R, D)."""
        ...


class DoubtWarning(UserWarning):
    """A reason to doubt an answer."""


@dataclass(frozen=True)
class Safeguards:
    """The parts of a model directory that say when to doubt its answers.

    Attributes:
        folder: the model directory, or an exported folder.
        certificates: one for each risk; None if they are missing.
        index: of the training images; None if it is missing.
    """

    folder: Path
    certificates: tuple[Certificate, ...] | None
    index: ImageIndex | None
    _unlike: WeakKeyDictionary[EncodedImage, bool] = field(default_factory=WeakKeyDictionary, repr=False, compare=False)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read them; an older model directory has none, or none of this version.

        Raises:
            ValueError: a file is damaged.
        """
        path = Path(folder) / CERTIFICATE
        certificates = None
        if path.is_file():
            try:
                certificates = tuple(map(Certificate.from_json, read_json(path)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: {error}; write it again with `coattn certify {folder}`") from None
        return cls(Path(folder), certificates, ImageIndex.load(folder))

    def __reduce__(self) -> tuple[type[Self], tuple[Path, tuple[Certificate, ...] | None, ImageIndex | None]]:
        """Pickle without the images that were checked, which are held weakly."""
        return type(self), (self.folder, self.certificates, self.index)

    @property
    def missing(self) -> str:
        """The missing parts and how to add them, as a sentence; empty if none is missing."""
        parts = (
            (CERTIFICATE, self.certificates, "no risk can be promised"),
            (IMAGE_INDEX, self.index, "images are not checked"),
        )
        missing = [(name, effect) for name, part, effect in parts if part is None]
        if not missing:
            return ""
        names, effects = (" and ".join(each) for each in zip(*missing, strict=True))
        fix = f"run `coattn certify {self.folder} --config CONFIG`"
        if not (self.folder / CONFIG).is_file():  # an exported folder
            fix = "run `coattn certify` on its model directory and export it again"
        return f"{self.folder} has no current {names}: {effects}; {fix}"

    def judged(
        self,
        ranked: Sequence[Sequence[Answer]],
        images: Sequence[EncodedImage],
        questions: Sequence[str],
        reader: object,
        *,
        max_risk: float | None = None,
        answer_anyway: bool = False,
    ) -> list[Answers]:
        """The answers to questions with the reasons to doubt them. Each reason is also a `DoubtWarning`.

        Args:
            ranked: the answers to each question, best first.
            images: the image of each question; whether it is unlike the training images is found out once.
            questions: as asked.
            reader: the model's vocabulary, tokenizer or text encoder.
            max_risk: the wished risk, in (0, 1); None makes warnings of all reasons.
            answer_anyway: withhold nothing.
        """
        if self.index is not None and (new := {image for image in images if image not in self._unlike}):
            flagged = self.index.are_unlike(mean_features(image.array for image in new))
            self._unlike.update(zip(new, flagged.tolist(), strict=True))
        found = []
        for answers, image, question in zip(ranked, images, questions, strict=True):
            doubt = self.doubt(
                answers[0].confidence if answers else 0.0,
                self._unlike.get(image, False),
                question,
                reader,
                max_risk=max_risk,
                answer_anyway=answer_anyway,
            )
            for reason in doubt.reasons:
                warnings.warn(f"{reason} The question was: {question}", DoubtWarning, stacklevel=3)
            found.append(Answers(answers, **doubt._asdict()))
        return found

    def doubt(
        self,
        confidence: float,
        unlike: bool,
        question: str,
        reader: object,
        *,
        max_risk: float | None = None,
        answer_anyway: bool = False,
    ) -> Doubt:
        """The reasons to doubt one answer, and whether they withhold it.

        Args:
            confidence: of the answer.
            unlike: whether its image is unlike the training images.
            question: see `judged`.
            reader: see `judged`.
            max_risk: see `judged`.
            answer_anyway: see `judged`.
        """
        reasons = [] if max_risk is None else self._risk_reasons(confidence, max_risk)
        unknown = unknown_words(question, reader)
        not_understood = len(unknown) > 1 or (len(unknown) == 1 and knows_no_word(question, reader))
        too_long = isinstance(reader, Vocabulary) and reader.is_too_long(question)
        doubtful = bool(reasons) or unlike or not_understood or too_long
        withheld = max_risk is not None and not answer_anyway and doubtful
        reasons += [UNLIKE] if unlike else []
        reasons += [TOO_LONG] if too_long else []
        if unknown:
            named = ", ".join(f"“{word}”" for word in unknown)
            reasons.append(f"The model does not know the word{'s' if len(unknown) > 1 else ''} {named}.")
        return Doubt(withheld, tuple(reasons), tuple(unknown))

    def _risk_reasons(self, confidence: float, max_risk: float) -> list[str]:
        if self.certificates is None:
            return ["No risk can be promised: the model has no certificate."]
        threshold = certified_threshold(self.certificates, max_risk)
        if threshold is None:
            return [f"A risk of {100 * max_risk:g} % could not be certified for this model."]
        if confidence >= threshold:
            return []
        sure = f"{100 * confidence:.4g} % is below the {100 * threshold:.4g} %"
        return [f"The confidence of {sure} that keep the risk to at most {100 * max_risk:g} %."]

    def card(self) -> str:
        """The section of the model card: the certificates in sentences, and what is flagged."""
        lines = [f"- {certificate.sentence()}" for certificate in self.certificates or ()]
        if self.index is not None:
            lines.append(
                f"- An image is flagged as unlike the training images if it is farther from them than "
                f"{100 * QUANTILE:g} % of the validation images (mean region features, {self.index.num_neighbors} "
                f"nearest of {len(self.index.centers)} training images, relative to their own distances)."
            )
        return "\n".join(lines)

    def save(self) -> None:
        """Write the files into the model directory, and a section into its card."""
        if self.certificates is not None:
            content = [certificate.to_json() for certificate in self.certificates]
            with atomic_path(self.folder / CERTIFICATE) as partial:
                partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if self.index is not None:
            self.index.save(self.folder)
        write_section(self.folder, SECTION, self.card())


def check_max_risk(max_risk: float | None, answer_anyway: bool = False) -> None:
    """Raise ValueError unless a wished risk is None or in (0, 1), and given if withheld answers are shown anyway."""
    if max_risk is not None and not 0 < max_risk < 1:
        raise ValueError(f"max_risk (--max-risk) is a share between 0 and 1, for example 0.05, not {max_risk}")
    if answer_anyway and max_risk is None:
        raise ValueError("answer_anyway (--answer-anyway) keeps what max_risk (--max-risk) withholds: give both")
