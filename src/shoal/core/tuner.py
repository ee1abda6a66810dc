"""The tuner: decides what to train next. It does no I/O, reads no clock, owns no process.

    ask()         -> Trial   what to run, or None
    tell(Report)             what came of it

Its state is a fold over the journal, and its randomness a function of (seed, member, step): a
resumed run goes on as if it had never stopped, and needs no generator state for it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import heappop, heappush

from shoal.core.chance import stream
from shoal.core.exploit import Cohort, Exploit, Truncation
from shoal.core.explore import Explore, Shift
from shoal.core.live import Live
from shoal.core.population import EMPTY, Population, Ranking
from shoal.core.records import (
    CERTAIN,
    LOST,
    Failed,
    Finished,
    Hparams,
    Record,
    Report,
    Result,
    Trial,
)
from shoal.core.space import Space


class Tuner:
    """Population based training, decided one trial at a time (Jaderberg et al., 2017).

    A whole program:

        tuner = Tuner(Space({"lr": Float(1e-4, 1e-1, log=True)}), population=8, steps=20, seed=0)
        weights = {}
        while trial := tuner.ask():
            start = None if trial.parent is None else weights[trial.parent]
            weights[trial.id], accuracy = train(start, **trial.hparams)
            tuner.tell(Finished(trial.id, accuracy))
        best = tuner.population.best

    Whoever runs trials side by side asks until None, and again after each `tell`.

    Synchronous: nobody starts step s + 1 before all have ended step s, and each is compared with
    all at step s. Asynchronous: nobody waits; a member that has ended step s is compared at step s
    once half the population has been there, and before that with everybody's latest; it copies the
    latest of whom it copies. Either way only a member that copied somebody explores.

    The last `control` members are the control arm: they never copy, and train under what they began
    with. Others may copy them, but are compared without them, as a control at the bottom would take
    the place of a member that should copy.

    Args:
        space: what the hyperparameters may be.
        population: how many members are trained together.
        control: how many of them never copy.
        initial: what the first members begin with, one each; of names that one leaves out, and for
            the other members, values are drawn.
        steps: how many trials each member does; None for no end.
        trials: how many trials are decided in all; None for no end.
        exploit: whose weights a member goes on with.
        explore: which hyperparameters it tries after it has copied.
        synchronous: whether there are generations.
        seed: the same seed, the same decisions (asynchronous: and the same order of reports).
        retries: how often a failed trial is tried again before its member is refilled from a donor;
            None for once, and not at all where the same seed fails in the same way (`CERTAIN`).
        journal: the records of an earlier run, to go on from.

    Attributes:
        live: the trials that run, and those whose checkpoints a member, a running trial or the best
            score can need.

    Raises:
        ValueError: `population`, `steps` or `trials` is below 1, `retries` or `control` below 0, or
            `control` above `population`; or `initial` has more settings than there are members.
        ProtocolError: `journal` is not one of this tuner's.
    """

    def __init__(
        self,
        space: Space,
        *,
        population: int,
        steps: int | None,
        trials: int | None = None,
        control: int = 0,
        initial: Sequence[Hparams] = (),
        exploit: Exploit = Truncation(),
        explore: Explore = Shift(),
        synchronous: bool = True,
        seed: int = 0,
        retries: int | None = None,
        journal: Iterable[Record] = (),
    ) -> None:
        refuse_below(1, population=population)
        refuse_below(0, retries=retries, control=control)
        if control > population:
            raise ValueError(f"control must be at most the population, {population}, got {control}")
        self.limit(steps, trials)
        if len(initial) > population:
            raise ValueError(f"initial has {len(initial)} settings, for {population} members")
        self.space, self.initial = space, tuple(initial)
        self.exploit, self.explore = exploit, explore
        self.synchronous, self.seed, self.retries = synchronous, seed, retries
        self.population = Population(population, seed, control)
        self._ready = [(0, member) for member in range(population)]  # a heap of (step, member)
        self._retrying: dict[int, Trial] = {}  # by id: failed, and to be tried again
        self._settled = Counter[int]()  # by step: trials that ended, for good or for bad
        self._down: set[int] = set()  # members whose latest trial to settle failed
        self.live = Live()
        self._held: list[tuple[int, ...]] = [()] * population  # by member: what it needs
        self._held_best: int | None = None
        self._generations: dict[int, list[int]] = {}  # by step: what its cohort may copy
        self._begun = Counter[int]()  # by step: members that have begun it
        for record in journal:
            self._learn(record)
        self._hold_all()

    def ask(self) -> Trial | None:
        """The next trial to run, or None while all are running, waiting for others, or done."""
        if self._retrying:
            failed = self._retrying[min(self._retrying)]
            trial: Trial | None = replace(failed, attempt=failed.attempt + 1)
        else:
            trial = self._next()
        if trial is not None:
            self._apply(trial)
        return trial

    def limit(self, steps: int | None, trials: int | None) -> None:
        """Allow so much from now on; what was decided already stays.

        Raises:
            ValueError: `steps` or `trials` is below 1; nothing is changed.
        """
        refuse_below(1, steps=steps, trials=trials)
        self.steps, self.trials = steps, trials

    def awaits(self, report: Report) -> bool:
        """Whether the attempt that `report` is of is running."""
        trial = self.population.running.get(report.trial)
        return trial is not None and trial.attempt == report.attempt

    def tell(self, report: Report) -> None:
        """Take in what became of a running trial.

        Raises:
            ProtocolError: that attempt of that trial is not running; the state is unchanged.
        """
        self._apply(report)

    def gave_up(self, report: Failed) -> bool:
        """Whether the trial of `report`, which was told, has failed for good."""
        return report.trial not in self._retrying

    def recover(self) -> list[Trial]:
        """The trials to start again after the controller has died or given up.

        These are the ones that were running, and, where nobody was left to copy, the ones that had
        failed: whoever resumes such a run has mended something. Each is a new attempt under the
        hyperparameters, parent and seed that were decided.
        """
        population = self.population
        lost = list(population.running.values())
        if self.stuck is not None:
            lasts = (population.last(member) for member in range(population.size))
            lost = [trial for trial in lasts if trial is not None]
        lost.sort(key=lambda trial: trial.id)
        again = [replace(trial, attempt=trial.attempt + 1) for trial in lost]
        for trial in again:
            self._apply(trial)
        return again

    @property
    def done(self) -> bool:
        """Whether every trial that `steps` and `trials` allow has been decided and has ended."""
        return self._idle and self._spent

    @property
    def stuck(self) -> str | None:
        """Why training has failed, where it has: nobody is left to copy."""
        front, size = self._front(), self.population.size
        if not self._idle or front is None or front[0] == 0:
            return None
        step = front[0] - 1
        if not self.synchronous:
            return (
                f"the latest trials of all {size} members failed"
                if len(self._down) == size
                else None
            )
        if self._settled[step] < size or len(self.population.at(step).donors) > 0:
            return None
        return f"all {size} trials of step {step} failed"

    @property
    def _idle(self) -> bool:
        return not self.population.running and not self._retrying

    @property
    def _spent(self) -> bool:
        """Whether no further trial may be decided."""
        front = self._front()
        return front is not None and not self._may_begin(front[0])

    def _may_begin(self, step: int) -> bool:
        """Whether `steps` and `trials` let somebody begin `step`."""
        if self.trials is not None and len(self.population.trials) >= self.trials:
            return False
        return self.steps is None or step < self.steps

    def _front(self) -> tuple[int, int] | None:
        """(step, member) of who moves next: of those that have settled, the furthest behind."""
        ready = self._ready
        while ready and not self._can_move(*ready[0]):
            heappop(ready)  # nobody looks for the entry of a member that moved on: here it goes
        return ready[0] if ready else None

    def _can_move(self, step: int, member: int) -> bool:
        last = self.population.last(member)
        if last is None:
            return True
        if last.step + 1 != step or last.id in self.population.running:
            return False
        return last.id not in self._retrying

    def _next(self) -> Trial | None:
        """The next trial that begins a step, if one may begin now."""
        front = self._front()
        if front is None or not self._may_begin(front[0]):
            return None
        population, (step, member) = self.population, front
        id = len(population.trials)
        if step == 0:
            return self._fresh(id, member, step)
        own, cohort = self.compared(member, step)
        if len(cohort.donors) == 0:
            return None
        if population.controls(member):  # from its newest result also where a later trial failed
            newest = population.newest(member)
            if newest is None:
                return self._fresh(id, member, step)
            return Trial(id, member, step, newest.trial.hparams, parent=newest.trial.id)
        rng = stream(self.seed, member, step)
        # where all have failed but the control arm, that is what there is
        move = self.exploit(own, cohort if len(cohort) > 0 else cohort.donors, rng)
        hparams = self.explore(move.hparams, self.space, rng) if move.explore else move.hparams
        return Trial(id, member, step, hparams, parent=move.start.trial.id)

    def _fresh(self, id: int, member: int, step: int) -> Trial:
        hparams = self.space.sample(stream(self.seed, member, step))
        if step == 0 and member < len(self.initial):
            hparams = {**hparams, **self.initial[member]}
        return Trial(id, member, step, hparams, parent=None)

    def compared(self, member: int, step: int) -> tuple[Result | None, Cohort]:
        """(its own result, those it is compared with) of a member that is about to begin `step`.

        The one is None where its latest trial has failed. The other has no donors while it has to
        wait.
        """
        own = None if member in self._down else self.population.newest(member)
        return own, self._cohort(step - 1)

    def _cohort(self, step: int) -> Cohort:
        """Who is compared with a member that has ended `step`; no donors while it has to wait."""
        population = self.population
        size, here = population.size, population.at(step)
        compared = size - population.control
        if self.synchronous:
            return here if self._settled[step] == size else EMPTY
        if len(self._down) == size:  # everything fails: let what still runs end, and see
            return EMPTY
        enough = len(here) > 1 and 2 * len(here) >= compared
        return Latest(here if enough else population.latest, population)

    def _apply(self, record: Record) -> None:
        self._learn(record)
        self._hold(record)

    def _learn(self, record: Record) -> None:
        population = self.population
        if isinstance(record, Trial):
            if record.attempt == 1:
                population.apply(record)
                if self._ready and self._ready[0] == (record.step, record.member):
                    heappop(self._ready)
                return
            running = record.id in population.running
            population.apply(record)
            retried = self._retrying.pop(record.id, None) is not None
            if not (running or retried):  # given up, and tried after all
                self._settled[record.step] -= 1
            return
        population.apply(record)
        trial = population.trials[record.trial]
        if isinstance(record, Failed) and again(
            record, population.failures[trial.id], self.retries
        ):
            self._retrying[trial.id] = trial
            return
        self._settled[trial.step] += 1
        if isinstance(record, Finished):
            self._down.discard(trial.member)
        else:
            self._down.add(trial.member)
        heappush(self._ready, (trial.step + 1, trial.member))

    def _hold(self, record: Record) -> None:
        """Keep up what is live, after what `record` has changed."""
        trial = record if isinstance(record, Trial) else self.population.trials[record.trial]
        self._hold_member(trial)
        if isinstance(record, Finished):
            self._hold_best()
            if self.synchronous:
                self._hold_for_generation(trial)
        elif self.synchronous and isinstance(record, Trial) and record.attempt == 1:
            self._begun[trial.step] += 1
            if self._begun[trial.step] == self.population.size:
                for id in self._generations.pop(trial.step - 1, ()):
                    self.live.release(id)

    def _hold_member(self, last: Trial) -> None:
        """Hold what the member whose newest trial is `last` needs."""
        newest = self.population.newest(last.member)
        needs: tuple[int, ...] = () if newest is None else (newest.trial.id,)
        if newest is None or newest.trial.id != last.id:  # it has not finished, and starts again
            # even where it was given up: it may be tried after all, see `recover`
            needs += () if last.parent is None else (last.parent,)
            needs += (last.id,) if last.id in self.population.running else ()
        for id in needs:
            self.live.hold(id)
        for id in self._held[last.member]:
            self.live.release(id)
        self._held[last.member] = needs

    def _hold_best(self) -> None:
        best = self.population.best
        if best is None or best.trial.id == self._held_best:
            return
        self.live.hold(best.trial.id)
        if self._held_best is not None:
            self.live.release(self._held_best)
        self._held_best = best.trial.id

    def _hold_for_generation(self, trial: Trial) -> None:
        """Whoever has yet to move may copy any of its generation."""
        self.live.hold(trial.id)
        self._generations.setdefault(trial.step, []).append(trial.id)

    def _hold_all(self) -> None:
        """Hold what is live after a whole journal: cheaper than to keep it up on the way."""
        population = self.population
        lasts = [last for m in range(population.size) if (last := population.last(m)) is not None]
        for last in lasts:
            self._hold_member(last)
        self._hold_best()
        if self.synchronous and lasts:
            slowest = min(population.next_step(member) for member in range(population.size))
            self._begun[slowest] = sum(last.step == slowest for last in lasts)
            for step in (slowest - 1, slowest):
                for result in population.at(step).donors:
                    self._hold_for_generation(result.trial)


def again(report: Failed, failures: int, retries: int | None) -> bool:
    """Whether a trial is tried again after `report`, its failure number `failures`.

    What was lost is no failure, and is always tried again.
    """
    if retries is None and report.kind in CERTAIN:
        return False
    return report.kind == LOST or failures <= (1 if retries is None else retries)


def refuse_below(least: int, **values: int | None) -> None:
    """Refuse a value that is too small.

    Raises:
        ValueError: one is.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


class Latest:
    """A cohort ranked by score at one step, as what there is to copy: each one's newest result."""

    def __init__(self, ranking: Ranking, population: Population) -> None:
        self.ranking, self._population = ranking, population

    @property
    def donors(self) -> "Latest":
        """Those that may be copied."""
        donors = self.ranking.donors
        return self if donors is self.ranking else Latest(donors, self._population)

    def __len__(self) -> int:
        return len(self.ranking)

    def __getitem__(self, rank: int) -> Result:
        result = self.ranking[rank]
        return self._population.newest(result.trial.member) or result

    def rank(self, result: Result) -> int:
        """How many of the cohort stand below `result`."""
        return self.ranking.rank(result)
