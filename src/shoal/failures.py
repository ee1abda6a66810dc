"""Trials that failed for good: how a user is told of them, once and all together."""

from collections import Counter
from collections.abc import Callable, Iterable

from shoal.core.records import Failed, Trial

AT_ONCE = 3  # that are told one by one
PAUSE_S = 10.0  # between two lines, after these
KINDS = 3  # of causes that a summary names
LONGEST = 200  # characters of a reason in a line


def cause(error: str) -> str:
    """What an error comes to in a few words."""
    text = error.lower()
    if any(said in text for said in ("out of memory", "memoryerror", "resource_exhausted")):
        return "out of memory"
    if "memory runs out" in text:
        return "killed, perhaps for want of memory"
    kind, _, reason = error.partition(": ")
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    if kind != "crash" or not lines:
        return kind
    last = lines[-1] if lines[0].startswith("exit code") else lines[0]
    return last if len(last) <= 80 else last[:77] + "..."


def summary(errors: Iterable[str]) -> str:
    """What these errors were, the most frequent first; nothing where there are none."""
    counts = Counter(map(cause, errors))
    if len(counts) == 1:
        return next(iter(counts))
    named = [f"{what} ({count})" for what, count in counts.most_common(KINDS)]
    rest = counts.total() - sum(count for _, count in counts.most_common(KINDS))
    return ", ".join([*named, *([f"others ({rest})"] if rest else [])])


class Failures:
    """Tells of trials as they fail for good: the first few each in a line, then now and then.

    Args:
        say: is told each line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told = self._untold = 0
        self._newest = ""
        self._next = 0.0

    def failed(self, trial: Trial, report: Failed, now: float) -> None:
        """Take in that `trial` has failed for good, at the time `now` on a clock in seconds."""
        error = f"{report.kind}: {report.reason}".splitlines()[0]
        which = f"trial {trial.id} (member {trial.member}, step {trial.step})"
        self._newest = f"{which} failed: {error[:LONGEST]}"
        if self._told < AT_ONCE:
            self._told += 1
            self._say(self._newest)
            self._next = now + PAUSE_S
            return
        self._untold += 1
        if now >= self._next:
            self.settle()
            self._next = now + PAUSE_S

    def settle(self) -> None:
        """Tell of those that were not told yet."""
        if self._untold == 1:
            self._say(self._newest)
        elif self._untold:
            self._say(f"{self._untold} more trials failed, the last: {self._newest}")
        self._untold = 0
