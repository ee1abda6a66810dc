"""What the loop needs from whatever runs trials."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from shoal.core.records import LOST, Failed, Report, Seen, Trial

Log: TypeAlias = Callable[[str, str], None]  # (level, text), for the user


class RunnerError(Exception):
    """Trials cannot be run at all: the message says why and what to do."""


class Runner(Protocol):
    """Runs trials, each in a slot of its own.

    What one has to do, whatever it runs, is in `tests/runners/conformance.py`.
    """

    @property
    def free(self) -> int:
        """How many more trials can be submitted now."""
        ...

    @property
    def waiting_for(self) -> str | None:
        """What keeps submitted trials from running, in words; None if nothing does."""
        ...

    def submit(self, trial: Trial) -> None:
        """Begin `trial`: for each one submitted, exactly one report will come."""
        ...

    def wait(self) -> Sequence[Report | Seen]:
        """What has happened, in order; after about a second, or a `wake`, perhaps nothing."""
        ...

    def wake(self) -> None:
        """Let a `wait` under way return; safe to call from a signal handler."""
        ...

    def resize(self, slots: int) -> None:
        """Run so many trials at a time from now on; what runs already goes on."""
        ...

    def withdraw(self) -> None:
        """Begin nothing more: what was submitted and has not begun is reported as lost."""
        ...

    @property
    def holds(self) -> bool:
        """Whether it has states that are nowhere else, and that `settle` would save."""
        ...

    def settle(self, until: float) -> None:
        """Let all that a resumed run would go on from be on disk; nothing runs any more.

        Not for longer than `until`, on the monotonic clock.
        """
        ...

    def close(self) -> None:
        """End whatever still runs, children included; no report comes of it."""
        ...


def withdrawn(trial: Trial) -> Failed:
    """The report of a trial that was submitted, and was not begun as no more were wanted."""
    return Failed(trial.id, LOST, "it had not begun when no more were wanted", trial.attempt)
