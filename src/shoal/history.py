"""All trials of an experiment, column by column: what pictures and the page are made of.

Needs numpy, which `shoal status` does not wait for.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from json import dumps, loads
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shoal.core.records import LOST, Hparams
from shoal.core.space import NAME
from shoal.result import Result
from shoal.stores.sqlite import SqliteStore

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

NOBODY = -1  # the parent of a fresh start
RUNNING, FINISHED, FAILED, GONE = range(4)  # states; GONE: lost, to be begun again
COUNTED = ("member", "step", "parent", "founder", "alone", "state", "hparams")
NUMBERS = ("float", "int", "normal")
MISSING = object()


@dataclass(frozen=True, slots=True)
class Domain:
    """What a hyperparameter may be, as far as a picture needs to know.

    Args:
        path: its name; of one that exists only under some option of a choice, after that one's.
        numeric: whether its values are numbers on an axis; else they are labels.
        options: what those labels are, as far as the file says.
        log: whether that axis is logarithmic.
        low: the lower end of its range, where it has one.
        high: the upper end.
        fixed: whether it is the same in every trial.
    """

    path: tuple[str, ...]
    numeric: bool
    options: tuple[str, ...] = ()
    log: bool = False
    low: float | None = None
    high: float | None = None
    fixed: bool = False

    @property
    def name(self) -> str:
        """What to call it."""
        return ".".join(self.path)

    def value(self, hparams: Hparams) -> Any:
        """What `hparams` has for it; `MISSING`: nothing."""
        found: Any = hparams
        for part in self.path:
            if not isinstance(found, dict) or part not in found:
                return MISSING
            found = found[part]
        return found

    def __or__(self, other: "Domain") -> "Domain":
        """What is in either, of one name under two options."""
        if not (self.numeric and other.numeric):
            options = dict.fromkeys((*self.options, *other.options))
            return Domain(self.path, numeric=False, options=tuple(options))
        ends = (self.low, self.high, other.low, other.high)
        known = [end for end in ends if end is not None]
        low, high = (min(known), max(known)) if len(known) == len(ends) else (None, None)
        return Domain(self.path, numeric=True, log=self.log and other.log, low=low, high=high)


def domains(space: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[Domain]:
    """The domains in `space`, which is in the words of the experiment file, inner ones too."""
    found: dict[tuple[str, ...], Domain] = {}
    for name, written in space.items():
        path = (*above, name)
        kind = next((kind for kind in NUMBERS if kind in written), None)
        if kind is not None:
            low, high = (None, None) if kind == "normal" else map(float, written[kind])
            log = bool(written.get("log"))
            new = [Domain(path, numeric=True, log=log, low=low, high=high)]
        else:
            options = tuple(map(option_of, written.get("choice", ())))
            new = [Domain(path, numeric=False, options=options, fixed="fixed" in written)]
            for option in written.get("choice", ()):
                if isinstance(option, dict) and NAME in option:
                    inner = {key: value for key, value in option.items() if key != NAME}
                    new += domains(inner, path)
        for domain in new:
            known = found.get(domain.path)
            found[domain.path] = domain if known is None else known | domain
    return list(found.values())


TIMED = {"metric", "decided", "started", "ended", "saved", "saving"}


@dataclass(frozen=True)
class History:
    """All trials that were decided, and what became of them.

    Arrays are of shape (T,), by trial id; what there is not yet is NaN, or `NOBODY`.
    """

    population: int
    called: str  # what the metric is called
    higher: bool  # whether a higher one is the better one
    domains: Sequence[Domain]
    member: Ints
    step: Ints
    parent: Ints
    founder: Ints  # the member that the first of the trial's ancestors was of
    alone: Ints  # 1 where nobody was copied on the way to the trial
    state: Ints
    metric: Floats  # as it was reported
    decided: Floats  # seconds since the epoch; so with the next two
    started: Floats
    ended: Floats
    saved: Floats  # when its state was, last, where a worker held that
    saving: Floats  # the seconds that it took
    values: Mapping[str, Floats]  # of each hyperparameter; of a choice, the index in `labels`
    labels: Mapping[str, Sequence[str]]  # of each choice that is no number

    def __len__(self) -> int:
        return len(self.member)

    @classmethod
    def of(cls, result: Result) -> "History":
        """The history of an experiment, so far.

        Raises:
            ExperimentError: its journal cannot be read.
        """
        reader = Reader.of(result)
        with result.folder.open() as store:
            reader.read(store)
        return reader.history()

    @cached_property
    def finished(self) -> Flags:
        """Which trials have a metric."""
        return np.isfinite(self.metric)

    @cached_property
    def score(self) -> Floats:
        """The metrics with higher better."""
        return self.metric if self.higher else -self.metric

    @cached_property
    def before(self) -> Ints:
        """The trial that the same member did before each, `NOBODY` for its first."""
        last = np.full(self.population, NOBODY)
        found = np.full(len(self), NOBODY)
        for step in range(int(self.step.max(initial=-1)) + 1):
            here = self.at(step)
            found[here] = last[self.member[here]]
            last[self.member[here]] = here
        return found

    @cached_property
    def copied(self) -> Flags:
        """Which trials started from another member's checkpoint."""
        known = self.parent != NOBODY
        others = self.member[self.parent] != self.member
        copied: Flags = known & others
        return copied

    @cached_property
    def best(self) -> int | None:
        """The trial with the best metric; of equals, the one decided first."""
        if not self.finished.any():
            return None
        return int(np.nanargmax(self.score))

    @cached_property
    def uncopied(self) -> int | None:
        """The best trial of those without a copy in their past; of equals, the first."""
        return self._best_of(self.alone == 1)

    def top(self, members: range, steps: int) -> int | None:
        """The best trial of so many first steps of these members."""
        there = (self.member >= members.start) & (self.member < members.stop)
        return self._best_of(there & (self.step < steps))

    def _best_of(self, which: Flags) -> int | None:
        score = np.where(which, self.score, np.nan)
        return int(np.nanargmax(score)) if np.isfinite(score).any() else None

    def lineage(self, trial: int | None) -> Ints:
        """`trial` and its ancestors, root first; of None, nothing."""
        line: list[int] = []
        at = NOBODY if trial is None else trial
        while at != NOBODY:
            line.append(at)
            at = int(self.parent[at])
        return np.array(line[::-1], dtype=np.int64)

    def at(self, step: int) -> Ints:
        """The trials of `step`, by id."""
        order, begins = self._by_step
        return order[begins[step] : begins[step + 1]]

    @cached_property
    def steps(self) -> int:
        """How many steps have begun."""
        return int(self.step.max(initial=-1)) + 1

    @cached_property
    def _by_step(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.step, kind="stable")
        return order, np.searchsorted(self.step[order], np.arange(self.steps + 1))

    @cached_property
    def grid(self) -> Ints:
        """The trial of each (member, step), `NOBODY` where there is none: (N, steps)."""
        found = np.full((self.population, self.steps), NOBODY)
        found[self.member, self.step] = np.arange(len(self))
        return found

    def on_grid(self, values: NDArray[Any]) -> Floats:
        """`values` of trials, laid out as members x steps; NaN where there is no trial."""
        known = self.grid != NOBODY
        return np.where(known, values.astype(float)[self.grid], np.nan)


@dataclass
class Reader:
    """Reads a journal, and later what is new in it.

    Args:
        population: how many members there are.
        called: what the metric is called.
        higher: whether a higher metric is the better one.
        space: the domains, in the words of the experiment file.
    """

    population: int
    called: str
    higher: bool
    space: Mapping[str, Any]
    seq: int = 0  # of the last record that was read
    saves: int = 0  # how many were
    begun: int = 0  # how often somebody was found to have begun, or to have begun again
    failures: bool = False  # whether any trial has ever failed

    def __post_init__(self) -> None:
        self._domains = domains(self.space)
        self._ints = {name: array("q") for name in COUNTED}
        self._floats = {name: array("d") for name in TIMED}
        self._attempt = array("q")
        self._open: set[int] = set()  # trials whose end is not known, and whose start may not be
        self._index: dict[str, int] = {}  # of hyperparameters, as they are written
        self._values = {d.name: array("d") for d in self._domains}  # of each of them
        self._labels = {
            d.name: {label: index for index, label in enumerate(d.options)}
            for d in self._domains
            if not d.numeric
        }

    @classmethod
    def of(cls, result: Result) -> "Reader":
        """A reader of the experiment's journal."""
        config = result.config
        called = "metric" if config["metric"] == "default" else config["metric"]
        return cls(config["population"], called, config["mode"] == "max", config["space"])

    def read(self, store: SqliteStore) -> bool:
        """Take in what is new in `store`; whether anything was."""
        before = self.seq, self.begun, self.saves
        for row in store.since(self.seq):
            self._take(*row)
        if self._open:
            for (trial, attempt), at in store.started(self._open).items():
                if attempt == self._attempt[trial] and self._floats["started"][trial] != at:
                    self._floats["started"][trial] = at
                    self.begun += 1
            states = self._ints["state"]
            self._open = {trial for trial in self._open if states[trial] in {RUNNING, GONE}}
        for seq, trial, at, seconds in store.saved(self.saves):
            self._floats["saved"][trial], self._floats["saving"][trial] = at, seconds
            self.saves = seq
        return before != (self.seq, self.begun, self.saves)

    def history(self) -> History:
        """What was read."""
        columns: dict[str, Any] = {
            name: np.array(column) for name, column in (self._ints | self._floats).items()
        }
        which = columns.pop("hparams")
        return History(
            population=self.population,
            called=self.called,
            higher=self.higher,
            domains=self._domains,
            values={
                name: np.array(column, dtype=np.float64)[which]
                for name, column in self._values.items()
            },
            labels={name: list(known) for name, known in self._labels.items()},
            **columns,
        )

    def _take(  # noqa: PLR0917 (the columns of a journal)
        self, seq: int, at: float, kind: str, trial: int, attempt: int,
        member: int, step: int, parent: int | None, hparams: str, score: float, failure: str,
    ) -> None:  # fmt: skip
        ints, floats = self._ints, self._floats
        self.seq = seq
        if kind != "trial":
            floats["ended"][trial] = at
            if kind == "finished":
                ints["state"][trial] = FINISHED
                floats["metric"][trial] = (score if self.higher else -score) + 0.0
            else:
                ints["state"][trial] = GONE if failure == LOST else FAILED
                self.failures = True
            return
        self._open.add(trial)
        if attempt > 1:  # decided before, and now begun again
            ints["state"][trial], self._attempt[trial] = RUNNING, attempt
            floats["started"][trial] = floats["ended"][trial] = np.nan
            return
        self._attempt.append(attempt)
        ints["member"].append(member)
        ints["step"].append(step)
        ints["parent"].append(NOBODY if parent is None else parent)
        ints["founder"].append(member if parent is None else ints["founder"][parent])
        own = parent is None or (ints["member"][parent] == member and ints["alone"][parent])
        ints["alone"].append(bool(own))
        ints["state"].append(RUNNING)
        ints["hparams"].append(self._known(hparams))
        floats["decided"].append(at)
        for name in TIMED - {"decided"}:
            floats[name].append(np.nan)

    def _known(self, written: str) -> int:
        """The index of the hyperparameters that are `written` like that."""
        index = self._index.get(written)
        if index is None:
            index = self._index[written] = len(self._index)
            hparams: Hparams = loads(written)
            for domain in self._domains:
                self._values[domain.name].append(self._number(domain, hparams))
        return index

    def _number(self, domain: Domain, hparams: Hparams) -> float:
        value = domain.value(hparams)
        if value is MISSING:
            return np.nan
        if domain.numeric:
            return float(value) if isinstance(value, int | float) else np.nan
        known = self._labels[domain.name]
        return known.setdefault(label_of(value), len(known))


def option_of(written: Any) -> str:
    """What a picture calls an option that is `written` as in an experiment file."""
    wrapped = isinstance(written, dict) and "fixed" in written and NAME not in written
    return label_of(written["fixed"] if wrapped else written)


def label_of(value: Any) -> str:
    """What a picture calls an option of a choice."""
    if isinstance(value, dict) and NAME in value:
        return str(value[NAME])
    return value if isinstance(value, str) else dumps(value)
