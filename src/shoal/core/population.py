"""The population: everything that has happened so far, as a fold over records."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from shoal.core.chance import number
from shoal.core.records import LOST, Failed, Finished, Record, Result, Trial


class ProtocolError(Exception):
    """A record that cannot follow the ones before it; the state is unchanged."""


# what orders results, no two of which have one id; and the result
Place: TypeAlias = tuple[float, int, int, Result]


class Ranking:
    """Results in order of score, worst first; where scores are equal, in an order drawn at random.

    A truncation of equals must not always hit the same members: on the paper's toy with its two
    symmetric members (Jaderberg et al., 2017, figure 2) a strict "better than" never copies
    anybody. Adding, removing and ranking take O(log N) comparisons.

    Args:
        results: those that are compared, in any order.
        donors: those that may be copied, where they are more than these.
    """

    def __init__(self, results: Iterable[Result] = (), donors: "Ranking | None" = None) -> None:
        self.donors = self if donors is None else donors
        self._places: list[Place] = []
        self._new = [_place(result) for result in results]  # not in order yet

    def __len__(self) -> int:
        return len(self._places) + len(self._new)

    def __getitem__(self, rank: int) -> Result:
        return self._ordered()[rank][3]

    def __iter__(self) -> Iterator[Result]:
        return (result for *_, result in self._ordered())

    def rank(self, result: Result) -> int:
        """How many stand below `result`."""
        return bisect_left(self._ordered(), _place(result))

    def add(self, result: Result) -> None:
        """Put `result` in its place."""
        self._new.append(_place(result))

    def remove(self, result: Result) -> None:
        """Take `result`, which is there, out."""
        del self._ordered()[self.rank(result)]

    def _ordered(self) -> list[Place]:
        places, new = self._places, self._new
        if new:
            if 8 * len(new) < len(places):
                for place in new:
                    insort(places, place)
            else:  # a generation, told before anybody asks: once in order is cheaper
                places += new
                places.sort()
            new.clear()
        return places


def _place(result: Result) -> Place:
    return result.score, result.lot, result.trial.id, result


EMPTY = Ranking()  # never added to


class Population:
    """`size` members and their trials. Changed only by `apply`, one record at a time.

    The last `control` of them are the control arm: others may copy them, and nobody is compared
    with them.
    """

    def __init__(self, size: int, seed: int = 0, control: int = 0) -> None:
        self.size, self.control = size, control
        self.trials: list[Trial] = []  # by id; of several attempts the newest
        self.running: dict[int, Trial] = {}  # by id
        self.failures: dict[int, int] = {}  # by id: how many attempts of it failed
        self.unsaved: set[int] = set()  # by id: finished, and left no checkpoint
        self.best: Result | None = None  # the highest score; of equals, the one decided first
        self._newest: list[Result | None] = [None] * size
        self._last: list[Trial | None] = [None] * size
        self._seed = seed
        self._at: dict[int, Ranking] = {}
        self._latest: Ranking | None = None  # kept up once it was asked for

    def apply(self, record: Record) -> None:
        """Take in what was decided or what happened.

        Raises:
            ProtocolError: a trial with an id or attempt out of turn, or of nobody; a report of a
                trial, or of an attempt of it, that is not running (said twice, or by a process
                given up).
        """
        if isinstance(record, Trial):
            self._decided(record)
            return
        trial = self._ended(record)
        if isinstance(record, Finished):
            self.failures.pop(trial.id, None)
            if not record.saved:
                self.unsaved.add(trial.id)
            self._add(Result(trial, record.score, number(self._seed, trial.member, trial.step)))
        else:
            lost = record.kind == LOST  # the machine's doing, not the trial's
            self.failures[trial.id] = self.failures.get(trial.id, 0) + (not lost)

    def last(self, member: int) -> Trial | None:
        """The newest trial of `member`, however it stands."""
        return self._last[member]

    def newest(self, member: int) -> Result | None:
        """The newest result of `member`: what it would go on from."""
        return self._newest[member]

    def next_step(self, member: int) -> int:
        """The step that `member` does next, or after the one it is doing."""
        last = self._last[member]
        return 0 if last is None else last.step + 1

    def controls(self, member: int) -> bool:
        """Whether `member` is of the control arm."""
        return member >= self.size - self.control

    def at(self, step: int) -> Ranking:
        """The results of `step`, kept until every member has begun a later one.

        Those of all members are its `donors`.
        """
        return self._at.get(step, EMPTY)

    @property
    def latest(self) -> Ranking:
        """Each member's newest result; those of all members are its `donors`."""
        if self._latest is None:
            self._latest = self._ranking()
            for result in self._newest:
                if result is not None:
                    self._enter(self._latest, result)
        return self._latest

    def lineage(self, trial: Trial) -> list[Trial]:
        """`trial` and its ancestors, root first: the hyperparameters along it are the schedule."""
        line = [trial]
        while (parent := line[-1].parent) is not None:
            line.append(self.trials[parent])
        return line[::-1]

    def _decided(self, trial: Trial) -> None:
        if not 0 <= trial.member < self.size:
            raise ProtocolError(f"trial {trial.id} is of member {trial.member}, who does not exist")
        if trial.id == len(self.trials):
            self.trials.append(trial)
            self._last[trial.member] = trial
        elif (
            0 <= trial.id < len(self.trials) and trial.attempt == self.trials[trial.id].attempt + 1
        ):
            self.trials[trial.id] = self._last[trial.member] = trial
        else:
            raise ProtocolError(f"trial {trial.id}, attempt {trial.attempt}, is out of turn")
        self.running[trial.id] = trial

    def _ended(self, report: Finished | Failed) -> Trial:
        trial = self.running.get(report.trial)
        if trial is None or trial.attempt != report.attempt:
            raise ProtocolError(f"trial {report.trial}, attempt {report.attempt}, is not running")
        del self.running[report.trial]
        return trial

    def _add(self, result: Result) -> None:
        trial = result.trial
        here = self._at.get(trial.step)
        if here is None:
            self._forget()
            here = self._at[trial.step] = self._ranking()
        self._enter(here, result)
        if (latest := self._latest) is not None:
            if (old := self._newest[trial.member]) is not None:
                latest.donors.remove(old)
                if latest is not latest.donors and not self.controls(trial.member):
                    latest.remove(old)
            self._enter(latest, result)
        self._newest[trial.member] = result
        best = self.best
        if best is None or (result.score, -trial.id) > (best.score, -best.trial.id):
            self.best = result

    def _ranking(self) -> Ranking:
        return Ranking(donors=Ranking() if self.control else None)

    def _enter(self, ranking: Ranking, result: Result) -> None:
        ranking.donors.add(result)
        if ranking is not ranking.donors and not self.controls(result.trial.member):
            ranking.add(result)

    def _forget(self) -> None:
        """Drop the rankings of steps that nobody will be compared at any more."""
        slowest = min(self.next_step(member) for member in range(self.size)) - 1
        for step in [step for step in self._at if step < slowest]:
            del self._at[step]
