"""What the machine takes away again and again is not started again at once.

A lost process is nobody's failure, and its trial is tried as often as it takes. On a machine that
takes every process within a moment that would be a storm of starts; so the second loss of a trial
is followed by a second's rest, and each further one by twice as long, up to a minute.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from shoal.core.records import LOST, Failed, Finished, Report, Seen, Trial
from shoal.runners.base import Runner, withdrawn

FIRST_S, LONGEST_S = 1.0, 60.0


class PacedRunner:
    """`runner`, with a rest before what was lost is submitted to it again.

    Args:
        runner: runs the trials.
        clock: seconds that never go back.
    """

    def __init__(self, runner: Runner, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner, self._clock = runner, clock
        self._losses: Counter[int] = Counter()  # by trial: how often in a row it was lost
        self._resting: list[tuple[float, int, Trial]] = []  # a heap by when they may go on
        self._withdrawn: list[Report] = []  # to be told of

    @property
    def free(self) -> int:
        return self._runner.free - len(self._resting)

    @property
    def waiting_for(self) -> str | None:
        if self._resting and self._runner.waiting_for is None:
            until, id, _ = self._resting[0]
            left = max(0.0, until - self._clock())
            times = self._losses[id]
            return f"{left:.0f} s before trial {id} is started again: it was lost {times} times"
        return self._runner.waiting_for

    def submit(self, trial: Trial) -> None:
        if (rest := self._rest_s(trial.id)) > 0:
            heappush(self._resting, (self._clock() + rest, trial.id, trial))
        else:
            self._runner.submit(trial)

    def wait(self) -> Sequence[Report | Seen]:
        while self._resting and self._resting[0][0] <= self._clock():
            self._runner.submit(heappop(self._resting)[2])
        if self._withdrawn:
            told, self._withdrawn = self._withdrawn, []
            return told
        events = self._runner.wait()
        for event in events:
            if isinstance(event, Failed) and event.kind == LOST:
                self._losses[event.trial] += 1
            elif isinstance(event, Finished | Failed):
                self._losses.pop(event.trial, None)
        return events

    def wake(self) -> None:
        self._runner.wake()

    def resize(self, slots: int) -> None:
        self._runner.resize(slots)

    def withdraw(self) -> None:
        self._runner.withdraw()
        self._withdrawn += [withdrawn(trial) for _, _, trial in self._resting]
        self._resting.clear()

    @property
    def holds(self) -> bool:
        return self._runner.holds

    def settle(self, until: float) -> None:
        self._runner.settle(until)

    def close(self) -> None:
        self._resting.clear()
        self._runner.close()

    def _rest_s(self, id: int) -> float:
        losses = self._losses[id]
        return 0.0 if losses < 2 else min(LONGEST_S, FIRST_S * 2.0 ** (losses - 2))
