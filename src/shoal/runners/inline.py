"""Run trials in this process, one after the other: for tests, benchmarks and toy problems."""

from collections import deque
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from shoal.core.records import Failed, Finished, Report, Trial
from shoal.runners.base import withdrawn

Step = Callable[[Any, Trial], tuple[Any, float]]


class InlineRunner:
    """Calls `step(state, trial) -> (state, score)`, with None for the state of a fresh member."""

    def __init__(self, step: Step, slots: int = 1) -> None:
        self.states: dict[int, Any] = {}  # by trial
        self._step, self._slots = step, slots
        self._queue: deque[Trial] = deque()
        self._withdrawn: deque[Failed] = deque()

    @property
    def free(self) -> int:
        return self._slots - len(self._queue)

    @property
    def waiting_for(self) -> str | None:
        return None

    def submit(self, trial: Trial) -> None:
        self._queue.append(trial)

    def wait(self) -> Sequence[Report]:
        if self._withdrawn:
            return [self._withdrawn.popleft()]
        if not self._queue:
            return []
        trial = self._queue.popleft()
        state = None if trial.parent is None else self.states[trial.parent]
        try:
            self.states[trial.id], score = self._step(state, trial)
            if not isfinite(score):
                return [Failed(trial.id, "nan", f"its score is {score}", trial.attempt)]
            return [Finished(trial.id, score, attempt=trial.attempt)]
        except Exception as error:  # noqa: BLE001 (a failed trial is data)
            return [Failed(trial.id, "crash", repr(error), trial.attempt)]

    def wake(self) -> None:
        pass

    def resize(self, slots: int) -> None:
        self._slots = slots

    def withdraw(self) -> None:
        self._withdrawn.extend(withdrawn(trial) for trial in self._queue)
        self._queue.clear()

    @property
    def holds(self) -> bool:
        return False

    def settle(self, until: float) -> None:
        pass

    def close(self) -> None:
        self._queue.clear()
        self._withdrawn.clear()
