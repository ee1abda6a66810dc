"""What may be wrong with a run that runs: pure functions of its latest trials.

Each finding is a sentence with the numbers that it rests on. None of them changes anything.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any

from shoal.core.records import LOST, NOT_COPIED, Value
from shoal.failures import cause
from shoal.views import Row

MOST = 0.75  # of the members at a bound
NEAR = 0.01  # of a range: what is as good as at its end
FEWEST_MEMBERS = 4  # of whom "most" can be said
FEWEST_COPIES = 6  # of which anything can be said
FEWEST_FAILURES = 3  # that make a region
SLOW, SLOW_S = 3.0, 5.0  # times what the others take, and at least so long
PATIENT_S = 30.0  # a trial is not late before that
GROWTH = 1.4826  # x the median absolute deviation: the standard deviation, were it normal


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that whoever runs the experiment should know.

    Args:
        key: what it is about: the same thing later has the same key.
        text: the finding, and what can be done.
    """

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The latest part of a run, as rows.

    Args:
        rows: its trials, by id.
        population: how many members there are.
        higher: whether a higher metric is the better one.
        synchronous: whether members wait for one another.
        space: the domains, in the words of the experiment file.
        control: how many of the last members never copy.
        ancestor: the trial that the newest results of all members go back to, if there is one.
        now: the time, where it runs.
    """

    rows: Sequence[Row]
    population: int
    higher: bool
    synchronous: bool
    space: Mapping[str, Any]
    control: int = 0
    ancestor: Row | None = None
    now: float | None = None

    @property
    def finished(self) -> dict[int, Row]:
        """The trials with a metric, by id."""
        return {row.id: row for row in self.rows if row.metric is not None}

    @property
    def newest(self) -> list[Row]:
        """Each member's newest trial with a metric."""
        return list({row.member: row for row in self.finished.values()}.values())

    def gain(self, new: Row, old: Row) -> float:
        """By how much `new` is better than `old`."""
        assert new.metric is not None
        assert old.metric is not None
        return (new.metric - old.metric) * (1 if self.higher else -1)


def findings(seen: Seen) -> list[Finding]:
    """All that is to be said of a run."""
    looks: tuple[Callable[[Seen], Iterator[Finding]], ...] = (
        failing, late, slow, pinned, idle_explore, noisy, lucky, descended, overtaken,
    )  # fmt: skip
    return [finding for look in looks for finding in look(seen)]


# ------------------------------------------------------------------ hyperparameters


def pinned(seen: Seen) -> Iterator[Finding]:
    """Hyperparameters that stand at the end of their range in most members."""
    newest = seen.newest
    if len(newest) < FEWEST_MEMBERS:
        return
    for name, (low, high, scale) in bounds(seen.space).items():
        values = [x for row in newest if isinstance(x := row.hparams.get(name), int | float)]
        reach = NEAR * (scale(high) - scale(low))
        for which, end in (("lower", low), ("upper", high)):
            there = sum(abs(scale(value) - scale(end)) <= reach for value in values)
            if there >= MOST * len(newest):
                yield Finding(
                    f"pinned {name} {which}",
                    f"{name} is at its {which} bound, {end:g}, in {there} of {len(newest)} members:"
                    " there may be better values beyond it",
                )


def bounds(
    space: Mapping[str, Any],
) -> dict[str, tuple[float, float, Callable[[float], float]]]:
    """(lower end, upper end, scale) of each range in `space`."""
    found: dict[str, tuple[float, float, Callable[[float], float]]] = {}
    for name, domain in space.items():
        for kind in ("float", "int"):
            if isinstance(domain, dict) and kind in domain:
                low, high = domain[kind]
                if low < high:
                    found[name] = low, high, log if domain.get("log") else float
    return found


def idle_explore(seen: Seen) -> Iterator[Finding]:
    """Copies under the very hyperparameters that were copied."""
    pairs = [(row, donor) for row, donor, _ in copies(seen)]
    same = sum(row.hparams == donor.hparams for row, donor in pairs)
    if len(pairs) >= FEWEST_COPIES and 2 * same >= len(pairs):
        yield Finding(
            "explore",
            f"explore changed nothing in {same} of the last {len(pairs)} copies: every value is at "
            "a bound, has no neighbour, or is constant",
        )


# ------------------------------------------------------------------ exploits


def copies(seen: Seen) -> list[tuple[Row, Row, Row | None]]:
    """(trial, what it copied, what it was before) of each that went on from somebody else."""
    ids, last = {row.id: row for row in seen.rows}, dict[int, Row]()
    found = []
    for row in seen.rows:
        donor = None if row.parent is None else ids.get(row.parent)
        if donor is not None and donor.member != row.member:
            own = last.get(row.member)
            found.append((row, donor, own if own is not None and own.metric is not None else None))
        last[row.member] = row
    return found


def noisy(seen: Seen) -> Iterator[Finding]:
    """Exploits that decide less than what scores change by themselves from step to step."""
    finished = seen.finished
    gaps = [
        seen.gain(donor, own)
        for _, donor, own in copies(seen)
        if own is not None and donor.metric is not None
    ]
    moves = [
        seen.gain(row, finished[row.parent])
        for row in finished.values()
        if row.parent in finished and finished[row.parent].member == row.member
    ]
    if len(gaps) < FEWEST_COPIES or len(moves) < 2 * FEWEST_COPIES:
        return
    middle = median(moves)
    noise = GROWTH * median(abs(move - middle) for move in moves)
    if (gap := median(gaps)) < noise:
        yield Finding(
            "noise",
            f"the last {len(gaps)} exploits copied what was better by {gap:.3g} (median), while "
            f"scores change by ±{noise:.3g} from one step to the next: they may be coin flips; "
            "longer steps or a larger evaluation set make them count",
        )


def lucky(seen: Seen) -> Iterator[Finding]:
    """Copies that came out no better than what they replaced."""
    ended = [(row, own) for row, _, own in copies(seen) if row.metric is not None and own]
    worse = sum(seen.gain(row, own) <= 0 for row, own in ended)
    if len(ended) >= FEWEST_COPIES and 2 * worse > len(ended):
        yield Finding(
            "luck",
            f"{worse} of the last {len(ended)} copies came out no better than what they replaced: "
            "their donors may have been lucky, or explore goes too far",
        )


def descended(seen: Seen) -> Iterator[Finding]:
    """A population that is one model's."""
    root = seen.ancestor
    if root is not None and seen.population >= FEWEST_MEMBERS:
        yield Finding(
            "descent",
            f"all {seen.population} members descend from member {root.member} as it was after step "
            f"{root.step}: what the others had learned until then is gone",
        )


def overtaken(seen: Seen) -> Iterator[Finding]:
    """A control arm that is ahead of those that copy."""
    free = seen.population - seen.control
    ended = {row.member: row.step for row in seen.newest}
    if not seen.control or not free or len(ended) < seen.population:
        return
    step = min(ended.values())
    here = [row for row in seen.finished.values() if row.step == step]
    arms = [row for row in here if row.member >= free], [row for row in here if row.member < free]
    if step < 1 or not all(arms):  # at step 0 there was nothing to copy
        return
    control, best = (max(arm, key=lambda row: seen.gain(row, here[0])) for arm in arms)
    if (lead := seen.gain(control, best)) > 0:
        yield Finding(
            "control",
            f"the control arm is ahead: at step {step} the best of {seen.control} that never copied"
            f" is better by {lead:.3g} than the best of {free} others. Copying may come too early:"
            " longer steps, or a smaller fraction, keep slow starters",
        )


# ------------------------------------------------------------------ time


def slow(seen: Seen) -> Iterator[Finding]:
    """Members whose steps take much longer than those of the others."""
    took: dict[int, list[float]] = defaultdict(list)
    for row in seen.finished.values():
        if row.ended is not None:
            took[row.member].append(row.ended - row.started)
    usual = {member: median(times) for member, times in took.items() if len(times) >= 3}
    for member, own in usual.items():
        others = [time for other, time in usual.items() if other != member]
        if len(others) + 1 < FEWEST_MEMBERS:
            continue
        rest = median(others)
        if own > SLOW * rest and own - rest > SLOW_S:
            waits = ", and all wait for it" if seen.synchronous else ""
            yield Finding(
                f"slow {member}",
                f"member {member} takes {own:.0f} s a step, the others {rest:.0f} s{waits}",
            )


def late(seen: Seen) -> Iterator[Finding]:
    """Trials that run for much longer than trials take."""
    times = [row.ended - row.started for row in seen.finished.values() if row.ended is not None]
    if seen.now is None or len(times) < FEWEST_MEMBERS:
        return
    usual = median(times)
    for row in seen.rows:
        so_far = seen.now - row.started
        if row.state == "running" and so_far > max(PATIENT_S, SLOW * max(times)):
            yield Finding(
                f"late {row.id}",
                f"trial {row.id} (member {row.member}, step {row.step}) has run for {so_far:.0f} s,"
                f" and trials take {usual:.0f}: `timeout` in the experiment file ends such ones",
            )


# ------------------------------------------------------------------ failures


def failing(seen: Seen) -> Iterator[Finding]:
    """The region of the space in which trials fail, where there is one."""
    # of what is no matter of hyperparameters, none is to blame
    bad = [r for r in seen.rows if r.error is not None and cause(r.error) not in (LOST, NOT_COPIED)]
    good = [row for row in seen.finished.values() if row.error is None]
    if len(bad) < FEWEST_FAILURES:
        return
    found = [region for name in seen.space for region in regions(name, bad, good)]
    best = max(found, default=None, key=lambda region: region[0])
    if best is None:
        return
    many, where, rows = best
    why, _ = Counter(cause(row.error or "") for row in rows).most_common(1)[0]
    yield Finding(f"fails {where}", f"{where} failed {many} of {many} times: {why}")


def regions(
    name: str, bad: Sequence[Row], good: Sequence[Row]
) -> Iterator[tuple[int, str, list[Row]]]:
    """(how many failed there, the region in words, they) of regions of `name` where all fail."""
    values: list[Any] = [row.hparams.get(name) for row in bad]
    fine: list[Any] = [row.hparams.get(name) for row in good]
    if all(map(is_number, [*values, *fine])) and fine:
        for word, beyond, end in (("≥", greater, max(fine)), ("≤", less, min(fine))):
            there = [row for row in bad if beyond(row.hparams[name], end)]
            if len(there) >= FEWEST_FAILURES:
                nearest = min if word == "≥" else max
                edge: float = nearest(row.hparams[name] for row in there)
                yield len(there), f"{name} {word} {edge:.4g}", there
        return
    for value in {repr(value): value for value in values}.values():
        there = [row for row in bad if row.hparams.get(name) == value]
        if len(there) >= FEWEST_FAILURES and value not in fine and fine:
            yield len(there), f"{name} = {value}", there


def greater(value: Value, end: Value) -> bool:
    """Whether `value` is above all that went well."""
    return bool(value > end)


def less(value: Value, end: Value) -> bool:
    """Whether `value` is below all that went well."""
    return bool(value < end)


def is_number(value: Value) -> bool:
    """Whether values like it have an order that means something."""
    return isinstance(value, int | float) and not isinstance(value, bool)
