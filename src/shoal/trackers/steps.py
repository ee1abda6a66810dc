"""What a tracker is told, step by step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from shoal.core.records import LOST, Failed, Finished, Hparams, Trial
from shoal.home import Folder
from shoal.result import Result
from shoal.stores.base import Entry

Scalar: TypeAlias = float | int | bool | str | None


@dataclass(frozen=True, slots=True)
class About:
    """Which experiment it is."""

    id: str
    name: str
    folder: Path
    metric: str  # what it is called
    higher: bool  # whether more of it is better
    population: int


@dataclass(frozen=True, slots=True)
class Donor:
    """Whose weights a member went on with."""

    member: int
    step: int


@dataclass(frozen=True, slots=True)
class Step:
    """A trial that has ended."""

    trial: int
    member: int
    step: int
    at: float  # seconds since the epoch
    hparams: Mapping[str, Scalar]  # those of a nested choice by `outer/inner`
    donor: Donor | None  # None: it went on with its own, or began
    explored: Mapping[str, tuple[Scalar, Scalar]]  # by name: what was copied, what it became
    metric: float | None  # None: it failed
    metrics: Mapping[str, float]  # what else was reported
    error: str | None
    best: bool  # whether it was the best so far

    @property
    def copied(self) -> str:
        """What was copied and explored, in words; nothing, if nobody was."""
        if self.donor is None:
            return ""
        changes = (f"{name} {say(a)} → {say(b)}" for name, (a, b) in self.explored.items())
        words = ", ".join(changes) or "nothing was explored"
        return f"copied member {self.donor.member} (step {self.donor.step}): {words}"


class Tracker(Protocol):
    """Where steps are written to. Called by one thread, which is not the controller's."""

    def begin(self, about: About) -> None:
        """Steps of this experiment will come; some may have come in an earlier life."""
        ...

    def step(self, step: Step) -> None:
        """A trial has ended."""
        ...

    def flush(self) -> None:
        """Let what has come be seen."""
        ...

    def end(self, state: str) -> None:
        """Nothing more comes: the experiment is so."""
        ...


def about(result: Result) -> About:
    """Which experiment `result` is of."""
    config = result.config
    return About(
        result.id,
        result.name,
        result.folder.path,
        "metric" if config["metric"] == "default" else config["metric"],
        config["mode"] == "max",
        config["population"],
    )


class Reading:
    """Steps as they come into a journal, each once."""

    def __init__(self, folder: Folder, *, higher: bool) -> None:
        self._folder, self._sign = folder, 1.0 if higher else -1.0
        self._trials: dict[int, Trial] = {}
        self._best = float("-inf")
        self.seq = 0  # of the last record that was read

    def new(self) -> Iterator[tuple[int, Step]]:
        """(number of the record, step) of what has come since it was asked last.

        Raises:
            ExperimentError: the journal cannot be read.
        """
        with self._folder.open() as store:
            for seq, entry in store.entries(self.seq):
                self.seq = seq
                step = self._told(entry)
                if step is not None:
                    yield seq, step

    def _told(self, entry: Entry) -> Step | None:
        at, record = entry
        if isinstance(record, Trial):
            self._trials[record.id] = record
            return None
        trial = self._trials[record.trial]
        parent = None if trial.parent is None else self._trials[trial.parent]
        hparams, donor = flat(trial.hparams), None
        explored: dict[str, tuple[Scalar, Scalar]] = {}
        if parent is not None and parent.member != trial.member:
            donor, before = Donor(parent.member, parent.step), flat(parent.hparams)
            names = dict.fromkeys([*before, *hparams])
            pairs = {name: (before.get(name), hparams.get(name)) for name in names}
            explored = {name: (a, b) for name, (a, b) in pairs.items() if a != b}
        told = (trial.id, trial.member, trial.step, at, hparams, donor, explored)
        if isinstance(record, Finished):
            best = record.score > self._best
            self._best = max(self._best, record.score)
            return Step(*told, self._sign * record.score + 0.0, record.metrics, None, best)
        assert isinstance(record, Failed)
        if record.kind == LOST:  # it is tried again
            return None
        return Step(*told, None, {}, f"{record.kind}: {record.reason}", best=False)


def flat(hparams: Hparams, outer: str = "") -> dict[str, Scalar]:
    """`hparams` by name, those of a nested choice by `outer/inner`."""
    found: dict[str, Scalar] = {}
    for name, value in hparams.items():
        if isinstance(value, Mapping):
            found[outer + name] = value.get("_name")
            rest = {key: item for key, item in value.items() if key != "_name"}
            found |= flat(rest, f"{outer}{name}/")
        elif value is None or isinstance(value, float | int | str):
            found[outer + name] = value
        else:
            found[outer + name] = str(value)
    return found


def is_number(value: Any) -> bool:
    """Whether `value` can be a point of a series."""
    return isinstance(value, float | int) and not isinstance(value, bool)


def say(value: Scalar) -> str:
    """A value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
