"""The two nouns that cross every boundary: a `Trial` we decided, a `Report` of what happened.

A journal is a sequence of these records and nothing else. Population, lineage, schedules and tables
are views of it. Records are frozen, hold plain Python values and survive JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias

Value: TypeAlias = (
    Any  # what JSON can carry: bool, int, float, str, None, and lists and dicts of them
)
Hparams: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Trial:
    """One step of one member: train from `parent`'s checkpoint under fixed `hparams`.

    A trial that is started again (its process was lost, or it failed and is retried) keeps its id
    and everything that was decided; only `attempt` grows.
    """

    id: int  # 0, 1, 2, ... in the order of decisions
    member: int
    step: int  # 0, 1, 2, ...: how many trials this member has ended before this one
    hparams: Hparams
    parent: int | None  # the trial to start from; another member's means this one was exploited
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Finished:
    """The trial trained to its end, its process is gone and its checkpoint is there to be used.

    Raises:
        ValueError: `score` is NaN or infinite, which is `Failed`.
    """

    trial: int
    score: (
        float  # higher is better, always; a minimised metric has had its sign flipped at the edge
    )
    metrics: Mapping[str, float] = field(default_factory=dict)  # whatever else it reported
    saved: bool = True  # whether it left anything in the folder for its checkpoint
    attempt: int = 1

    def __post_init__(self) -> None:
        if not isfinite(self.score):
            raise ValueError(
                f"trial {self.trial}: a score of {self.score} is a Failed, not a Finished"
            )


LOST = "lost"  # the kind of failure that is the machine's, and does not count as the trial's
NOT_APPLIED = "not applied"  # hyperparameters that were asked for are not those in force
NOT_COPIED = "not copied"  # the state that a trial was to begin in could not be copied
# kinds that the same seed comes to again: nothing is gained by trying once more
CERTAIN = frozenset({"nan", "bad result", NOT_APPLIED, NOT_COPIED})


@dataclass(frozen=True, slots=True)
class Failed:
    """The trial ended without a usable score."""

    trial: int
    kind: (
        # crash, killed, timeout, bad files, no result, bad result, nan, not applied, not copied,
        # lost checkpoint, lost
        str
    )
    reason: str  # for people: what was expected, what came
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """An intermediate result on the way through a trial: to be seen; nothing is decided by it."""

    trial: int
    index: int  # 0, 1, 2, ... within the attempt
    value: Value
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Started:
    """The trial has begun to train: to be seen; nothing is decided by it."""

    trial: int
    attempt: int = 1
    ago: float = 0.0  # seconds before this was said


@dataclass(frozen=True, slots=True)
class Saved:
    """The trial's state was saved: to be seen; nothing is decided by it."""

    trial: int
    seconds: float  # how long that took


Report: TypeAlias = Finished | Failed
Seen: TypeAlias = Started | Measured | Saved
Record: TypeAlias = Trial | Report


@dataclass(frozen=True, slots=True)
class Result:
    """A finished trial with its score: what exploit and explore choose from."""

    trial: Trial
    score: float
    lot: int = field(default=0, compare=False)  # drawn: the order where scores are the same
