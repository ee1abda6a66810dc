"""What the loop needs from whatever runs trials."""

from collections.abc import Sequence
from typing import Protocol

from shoal.core.records import Report, Seen, Trial


class RunnerError(Exception):
    """Trials cannot be run at all: the message says why and what to do."""


class Runner(Protocol):
    """Runs trials, each in a slot of its own."""

    @property
    def free(self) -> int:
        """How many more trials can be submitted now."""
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

    def close(self) -> None:
        """End whatever still runs, children included; no report comes of it."""
        ...
