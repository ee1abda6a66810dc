"""Slots of a simulated world: each trial a process that loads, trains, saves and reports."""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from shoal.checkpoints import Checkpoints
from shoal.core.chance import stream
from shoal.core.records import LOST, Failed, Finished, Report, Seen, Started, Trial
from shoal.core.tuner import Tuner
from shoal.runners.base import withdrawn
from tests.simulation.world import PATIENCE, Script, Simulation, untrainable

KINDS = (LOST, "crash", "killed", "timeout", "nan", "no result", "bad files")


class SimulatedSlots:
    """Ends what runs in whatever order and way the script says.

    Args:
        script: what happens.
        checkpoints: where trials load from and save to.
        slots: how many run at a time.
        seed: of the experiment.
        mishaps: how many may end badly.
        said: every report so far, also in earlier lives: some are said again.
    """

    waiting_for = None
    holds = False

    def __init__(
        self,
        script: Script,
        checkpoints: Checkpoints,
        slots: int,
        seed: int,
        mishaps: int,
        said: list[Report],
    ) -> None:
        self._script, self._checkpoints, self._slots = script, checkpoints, slots
        self._seed, self.mishaps, self._said = seed, mishaps, said
        self._running: dict[int, Trial] = {}
        self._waiting: deque[Trial] = deque()
        self._idle = 0  # how often in a row there was nothing to be said

    @property
    def free(self) -> int:
        return self._slots - len(self._running) - len(self._waiting)

    def submit(self, trial: Trial) -> None:
        assert trial.id not in self._running
        if len(self._running) >= self._slots:  # there is less room than in the life before
            self._waiting.append(trial)
            return
        load = self._checkpoints.load(trial)
        assert load is None or (load / "state.json").is_file(), "what it starts from is there"
        self._checkpoints.prepare(trial)
        self._running[trial.id] = trial

    def wait(self) -> Sequence[Report | Seen]:
        what = self._script.pick(8)
        if what == 7:
            self._idle += 1
            assert self._idle < PATIENCE, "everybody waits, and nothing will come"
            return []
        self._idle = 0
        events: list[Report | Seen] = []
        for _ in range(1 + self._script.pick(max(1, self._slots // 2))):
            if self._running:
                ids = list(self._running)
                events += self._ended(self._running.pop(ids[self._script.pick(len(ids))]))
        while self._waiting and len(self._running) < self._slots:
            self.submit(self._waiting.popleft())
        if what == 6 and self._said:  # somebody says what was said long ago
            events.append(self._said[self._script.pick(len(self._said))])
        if what == 5 and events:
            events += events
        return events

    def wake(self) -> None:
        pass

    def resize(self, slots: int) -> None:
        self._slots = slots

    def withdraw(self) -> None:
        self._said += [withdrawn(trial) for trial in self._running.values()]

    def settle(self, until: float) -> None:
        pass

    def close(self) -> None:
        # they go on for a while, and say so when it is too late
        for trial in self._running.values():
            self._said.append(Finished(trial.id, 1e9, {"trained": -1.0}, attempt=trial.attempt))
        self._running.clear()
        self._waiting.clear()

    def _ended(self, trial: Trial) -> list[Report | Seen]:
        report = self._report(trial)
        self._said.append(report)
        return [Started(trial.id, trial.attempt), report]

    def _report(self, trial: Trial) -> Report:
        save, load = self._checkpoints.save(trial), self._checkpoints.load(trial)
        assert not save.exists(), "what it saves to is empty"
        how = self._script.pick(3 * len(KINDS)) if self.mishaps else 0
        if 1 <= how <= len(KINDS):
            self.mishaps -= 1
            save.mkdir()  # what it leaves is of no use
            (save / "state.json").write_text("[1e9")
            return Failed(trial.id, KINDS[how - 1], "as the script says", trial.attempt)
        h = trial.hparams["h"]
        if untrainable(h):
            return Failed(trial.id, "crash", "a bad hyperparameter", trial.attempt)
        state = [] if load is None else json.loads((load / "state.json").read_text())
        state += [h, stream(self._seed + 1, trial.member, trial.step).random()]
        save.mkdir()
        (save / "state.json").write_text(json.dumps(state))
        return Finished(trial.id, sum(state), {"trained": sum(state[::2])}, attempt=trial.attempt)


@dataclass
class Slots(Simulation):
    """A run whose trials are processes.

    Args:
        slots: how many run at a time.
    """

    slots: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.said: list[Report] = []

    @contextmanager
    def life(self, tuner: Tuner, checkpoints: Checkpoints) -> Iterator[SimulatedSlots]:
        runner = SimulatedSlots(
            self.script, checkpoints, self.slots, self.seed, self.mishaps, self.said
        )
        try:
            yield runner
        finally:
            runner.close()
        for id in tuner.live:
            saved = checkpoints.save(tuner.population.trials[id]) / "state.json"
            assert saved.is_file() or tuner.stuck, "all that can go on is on disk at the end"
