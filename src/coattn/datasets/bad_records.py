"""Defective records of a data set: each is named, and left out only on request."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from coattn.datasets.records import Record

P = TypeVar("P")
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|-?\d+")
_SHOWN = 3


class BadRecordError(ValueError):
    """One record cannot be used; the others of its file may be good.

    Args:
        place: file and record, for example "train.json: question 7".
        problem: the fault and the fix.
    """

    def __init__(self, place: object, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.left_out = LeftOut(str(place), problem)


class UnusableRecordError(BadRecordError):
    """A published record of no use, for example with an empty answer. It is listed and left out without being asked."""


class LeftOut(NamedTuple):
    """A record, or an image, that is not in the prepared data set, and the reason."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


@dataclass(frozen=True, slots=True)
class BadRecords:
    """Collects the defective records of a data set.

    Attributes:
        skip: leave defective records out instead of refusing their file (`--skip-bad-rows`).
        left_out: the records that were left out so far.
    """

    skip: bool = False
    left_out: list[LeftOut] = field(default_factory=list)

    def keep(self, source: object, places: Iterable[P], read: Callable[[P], Record]) -> list[Record]:
        """Read the records of one file.

        A record that repeats an earlier one is left out. If two different records of a split have the same question
        id, the second one is defective.

        Args:
            source: the file, for messages.
            places: the entries of the file; the text of a place names it in messages.
            read: returns the record of an entry, or raises `BadRecordError`.

        Raises:
            ValueError: records are defective and `skip` is false, or no record is left.
        """
        first: dict[tuple[str, int | str], tuple[int, Record]] = {}
        defects: list[LeftOut] = []
        count = 0
        for count, place in enumerate(places, start=1):
            try:
                record = read(place)
            except UnusableRecordError as error:
                self.left_out.append(error.left_out)
                continue
            except BadRecordError as error:
                defects.append(error.left_out)
                continue
            number, earlier = first.setdefault((record.split, record.question_id), (count - 1, record))
            if earlier is record:
                continue
            named = f"question_id {record.question_id!r}"
            if earlier == record:
                self.left_out.append(LeftOut(str(place), f"{named} repeats record {number}, which is kept"))
            else:
                problem = f"{named} is also the id of record {number}, another question; make the ids unique"
                defects.append(LeftOut(str(place), problem))
        self.refuse_or_leave_out(source, defects, count)
        if not first:
            last = f"; the last one that was left out is {self.left_out[-1]}" if self.left_out else ""
            raise ValueError(f"{source}: no usable record is in this file{last}")
        return [record for _, record in first.values()]

    def refuse_or_leave_out(self, source: object, defects: Sequence[LeftOut], total: int) -> None:
        """Leave `defects` out, or raise the `ValueError` that names the first of them."""
        if defects and not self.skip:
            more = f"; and {len(defects) - _SHOWN} more" if len(defects) > _SHOWN else ""
            shown = "; ".join(str(defect).removeprefix(f"{source}: ") for defect in defects[:_SHOWN])
            raise ValueError(
                f"{source}: {len(defects)} of {total} records cannot be used: {shown}{more}. Correct them, or leave "
                "them out with --skip-bad-rows"
            )
        self.left_out.extend(defects)


def count_reasons(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """How many records were left out for each reason; the reason is the problem without its values and its fix."""
    reasons = (_VALUES.sub("...", item.problem.partition(";")[0]) for item in left_out)
    return dict(Counter(reasons).most_common())
