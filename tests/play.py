"""Runs without a world: a tuner, outcomes that are functions of the trial, any number of slots."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from shoal.core.records import Failed, Finished, Record, Report, Trial
from shoal.core.tuner import Tuner

Outcome = Callable[[Trial, int], Report]  # the second: how often the trial has failed before


@dataclass(frozen=True)
class Luck:
    """A score by (seed, member, step); a share of the trials fails a number of times first."""

    seed: int = 0
    failing: float = 0.0
    times: int = 1  # how often a failing trial fails
    levels: int = 1000  # few levels: many ties

    def __call__(self, trial: Trial, failed: int) -> Report:
        rng = Random(f"{self.seed}/{trial.member}/{trial.step}")
        score = rng.randrange(self.levels) / self.levels
        if rng.random() < self.failing and failed < self.times:
            return Failed(trial.id, "crash", "bad luck", trial.attempt)
        return Finished(trial.id, score, attempt=trial.attempt)


@dataclass
class Play:
    """A run of `tuner`: at every moment the drawn one of what may happen next happens.

    `journal` is what was recorded; `watch` is called after each record.
    """

    tuner: Tuner
    outcome: Outcome
    slots: int = 1
    order: Random | None = None  # None: first come, first served
    watch: Callable[[Tuner, Record], None] | None = None
    journal: list[Record] = field(default_factory=list)

    def run(self, limit: int | None = None) -> "Play":
        """Play until the tuner is done or stuck, or `limit` records are written."""
        while limit is None or len(self.journal) < limit:
            if not self.step():
                break
        return self

    def step(self) -> bool:
        """Let one thing happen; whether anything could."""
        running = list(self.tuner.population.running.values())
        early = self.order is None or self.order.random() < 0.6
        if len(running) < self.slots and (early or not running):
            trial = self.tuner.ask()
            if trial is not None:
                self._note(trial)
                return True
        if not running:
            return False
        trial = running[0] if self.order is None else self.order.choice(running)
        report = self.outcome(trial, self.tuner.population.failures.get(trial.id, 0))
        self.tuner.tell(report)
        self._note(report)
        return True

    def _note(self, record: Record) -> None:
        self.journal.append(record)
        if self.watch is not None:
            self.watch(self.tuner, record)


def decisions(tuner: Tuner) -> list[Trial]:
    """What was decided, however often it had to be tried."""
    return [replace(trial, attempt=1) for trial in tuner.population.trials]
