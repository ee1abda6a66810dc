"""Why a member did what it did next: the decision, made again from what was known at that time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from shoal.core.exploit import Cohort, Truncation
from shoal.core.records import Record, Result, Trial, Value
from shoal.core.tuner import Latest, Tuner

What = Literal["began", "went on", "copied", "was refilled"]


class Undecided(Exception):  # noqa: N818 (nothing is wrong)
    """There is no such decision: the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A result among those that were compared.

    Args:
        rank: 1 for the best.
        result: the result.
        start: what would be copied of it, which may be newer.
    """

    rank: int
    result: Result
    start: Result


@dataclass(frozen=True, slots=True)
class Decision:
    """What a member was to do, and why.

    Args:
        trial: what was decided.
        what: began anew, went on with its own weights, copied somebody, or copied somebody as it
            had failed.
        cohort: who was compared, the best first; empty where it began.
        donors: who could be copied, the best first: they, and the control arm.
        at: the step at which they were compared; None where each one's latest result was.
        own: its own place among them; None where it had failed, or had not been there.
        donor: the place, among the donors, of whom it copied.
        bottom: how many of the worst copy, and how many of the best are copied; None where another
            strategy than truncation has decided.
        before: the hyperparameters that it went on from.
        again: whether the same is decided today, from the same journal.
        control: whether the member is of the control arm, which never copies.
    """

    trial: Trial
    what: What
    cohort: tuple[Place, ...]
    donors: tuple[Place, ...]
    at: int | None
    own: Place | None
    donor: Place | None
    bottom: int | None
    before: Mapping[str, Value]
    again: bool
    control: bool = False

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """What exploring has changed: (before, after) by name; None for what was not there."""
        names = [*self.before, *(n for n in self.trial.hparams if n not in self.before)]
        pairs = {name: (self.before.get(name), self.trial.hparams.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def explain(
    make: Callable[[Iterable[Record]], Tuner], records: Iterable[Record], member: int, step: int
) -> Decision:
    """Why `member` did what it did at `step`.

    Args:
        make: makes the experiment's tuner of a journal.
        records: the journal.
        member: 0, 1, 2, ...
        step: 0, 1, 2, ...

    Raises:
        Undecided: it has not begun that step, or there is no such member or step.
    """
    found: list[Trial] = []

    def before() -> Iterator[Record]:
        for record in records:
            if isinstance(record, Trial) and (record.member, record.step) == (member, step):
                found.append(record)
                return
            yield record

    tuner = make(before())
    if found:
        return _decided(tuner, found[0])
    size = tuner.population.size
    if not 0 <= member < size:
        raise Undecided(f"there is no member {member}: there are {size}, 0 to {size - 1}")
    begun = tuner.population.next_step(member)
    raise Undecided(
        f"member {member} has not begun step {step}: "
        + (f"its latest is step {begun - 1}" if begun else "it has done nothing yet")
    )


def _decided(tuner: Tuner, trial: Trial) -> Decision:
    member, trials = trial.member, tuner.population.trials
    control = tuner.population.controls(member)
    if trial.parent is None:
        again = tuner.ask() == trial
        return Decision(
            trial, "began", (), (), None, None, None, None, trial.hparams, again, control
        )
    own, cohort = tuner.compared(member, trial.step)
    at = trial.step - 1 if of(cohort) is tuner.population.at(trial.step - 1) else None
    places = ranked(cohort)
    donors = places if cohort.donors is cohort else ranked(cohort.donors)
    mine = next((place for place in places if place.result.trial.member == member), None)
    start = trials[trial.parent]
    donor = next((place for place in donors if place.start.trial.id == start.id), None)
    compared = places or donors
    bottom = tuner.exploit.cut(len(compared)) if isinstance(tuner.exploit, Truncation) else None
    what: What = "went on" if start.member == member else "copied"
    if own is None and not control:
        what, mine = "was refilled", None
    again = tuner.ask() == trial
    copied = None if what == "went on" else donor
    return Decision(
        trial, what, places, donors, at, mine, copied, bottom, start.hparams, again, control
    )


def of(cohort: Cohort) -> Cohort:
    """The ranking behind `cohort`."""
    return cohort.ranking if isinstance(cohort, Latest) else cohort


def ranked(cohort: Cohort) -> tuple[Place, ...]:
    """The places of `cohort`, the best first."""
    ranking, size = of(cohort), len(cohort)
    return tuple(Place(size - low, ranking[low], cohort[low]) for low in range(size - 1, -1, -1))
