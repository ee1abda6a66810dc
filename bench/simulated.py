"""A cluster that is not there: 10,000 members on 2,000 workers, of which 1 % are lost each minute.

    python bench/simulated.py [--population N] [--workers N] [--steps N] [--minutes M]

The loop, the tuner, the journal on disk, retention and `WorkerRunner`, which leads the workers, are
the real ones. The workers are simulated, in a time of their own; what the controller itself needs
passes in that time, too, so that a slow one keeps workers waiting.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from shoal.checkpoints import Checkpoints
from shoal.core.records import LOST
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.home import Folder
from shoal.loop import run
from shoal.runners.crew import Event, Gone, Said
from shoal.runners.outcome import Objective
from shoal.runners.workers import WorkerRunner
from shoal.stores.sqlite import SqliteStore

SPACE = Space({"lr": Float(1e-4, 1.0, log=True), "momentum": Float(0, 0.99)})
STEP_S, SPREAD = 30.0, 0.25  # a step: the median, and the sigma of its logarithm
SAVE_S, LOAD_S, BEGIN_S = 0.2, 0.4, 5.0
LOST_A_S = 0.01 / 60.0  # of the workers


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now, self._real = 0.0, time.perf_counter()

    def monotonic(self) -> float:
        return self.now

    def catch_up(self) -> None:
        """Let what has really passed since the last `mark` pass here."""
        self.now += time.perf_counter() - self._real
        self.mark()

    def mark(self) -> None:
        self._real = time.perf_counter()


@dataclass
class Mate:
    """A worker."""

    orders: deque[Mapping[str, Any]] = field(default_factory=deque)
    busy: bool = False
    ready: bool = False


class SimulatedCrew:
    """So many workers as are asked for."""

    waiting_for = None
    can_start = True

    def __init__(self, clock: Clock) -> None:
        self._clock, self._rng = clock, Random(0)
        self._mates: dict[str, Mate] = {}
        self._due: list[tuple[float, int, str, Event]] = []
        self._number = count()
        self.trained_s = self.again_s = 0.0  # in steps that were done, for the first time and again
        self.lost = 0
        self.idle: list[float] = []  # from the end of a step to the next order
        self._ended: dict[str, float] = {}

    def want(self, workers: int) -> None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...

    def start(self, key: str) -> None:
        self._mates[key] = Mate()
        self._later(BEGIN_S, key, Said(key, {"ready": 1, "holds states": True}))
        self._later(self._rng.expovariate(LOST_A_S), key, Gone(key, LOST, "its node is gone"))

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        if (mate := self._mates.get(key)) is None or "drop" in message:
            return
        self._clock.catch_up()
        if "train" in message and key in self._ended:
            self.idle.append(self._clock.now - self._ended.pop(key))
        mate.orders.append(message)
        self._go_on(key, mate)

    def end(self, key: str) -> None:
        raise AssertionError(f"{key} is taken for hung")

    def dismiss(self, key: str) -> None:
        del self._mates[key]

    def wait(self, seconds: float) -> Sequence[Event]:
        self._clock.catch_up()
        until = self._clock.now + seconds
        if self._due and self._clock.now < self._due[0][0]:
            self._clock.now = min(until, self._due[0][0])
        elif not self._due:
            self._clock.now = until
        events = []
        while self._due and self._due[0][0] <= self._clock.now:
            _, _, key, event = heappop(self._due)
            if (mate := self._mates.get(key)) is None:
                continue
            events.append(event)
            self._happened(key, mate, event)
        self._clock.mark()
        return events

    def _happened(self, key: str, mate: Mate, event: Event) -> None:
        if isinstance(event, Gone):
            self.lost += 1
            del self._mates[key]
            self._ended.pop(key, None)
            return
        assert isinstance(event, Said)
        mate.ready = mate.ready or "ready" in event.message
        if "done" in event.message or "saved" in event.message:
            mate.orders.popleft()
            mate.busy = False
        if "done" in event.message:
            self.trained_s += event.message["seconds"]
            self.again_s += event.message["spent"] - event.message["seconds"]
            if not mate.orders:
                self._ended[key] = self._clock.now
        self._go_on(key, mate)

    def _go_on(self, key: str, mate: Mate) -> None:
        if not mate.orders or mate.busy:
            return
        mate.busy = True
        match mate.orders[0]:
            case {"save": id, "to": to}:
                folder = Path(to)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "state").touch()
                self._later(SAVE_S, key, Said(key, {"saved": id, "seconds": SAVE_S}))
            case {"train": job}:
                seconds = [self._rng.lognormvariate(0, SPREAD) * STEP_S for _ in job["steps"]]
                spent = sum(seconds) + (LOAD_S if job.get("load") else 0.0)
                score = self._rng.random()
                said = {"done": job["key"], "value": score, "seconds": seconds[-1], "spent": spent}
                self._later(spent, key, Said(key, said))

    def _later(self, seconds: float, key: str, event: Event) -> None:
        heappush(self._due, (self._clock.now + seconds, next(self._number), key, event))


class Timed(Tuner):
    """A tuner that knows how long its decisions take."""

    def __init__(self, *given: Any, **words: Any) -> None:
        super().__init__(*given, **words)
        self.took: list[float] = []

    def ask(self) -> Any:
        began = time.perf_counter()
        trial = super().ask()
        if trial is not None:
            self.took.append(time.perf_counter() - began)
        return trial


class Watch:
    """Looks on, and ends it after so many minutes."""

    def __init__(self, crew: SimulatedCrew, clock: Clock, minutes: float) -> None:
        self._crew, self._clock, self._minutes = crew, clock, minutes
        self.turns, self.since = 0, (0.0, 0.0, 0.0)
        self.until = self.since

    def __call__(self, tuner: Tuner) -> str | None:
        self.turns += 1
        now = self._clock.now
        if now < 120.0:  # until all have begun
            self.since = (now, self._crew.trained_s, self._crew.again_s)
        self.until = (now, self._crew.trained_s, self._crew.again_s)
        return "it is time" if now > 60.0 * self._minutes else None


def simulated(population: int, workers: int, steps: int, minutes: float) -> dict[str, float]:
    """What came of it."""
    clock = Clock()
    crew = SimulatedCrew(clock)
    with tempfile.TemporaryDirectory() as home, mock.patch("shoal.runners.workers.time", clock):
        store = SqliteStore.create(Path(home) / "journal.db", {})
        tuner = Timed(SPACE, population=population, steps=steps, synchronous=False)
        checkpoints = Checkpoints(Path(home) / "checkpoints", tuner.population)
        runner = WorkerRunner(
            crew, folder=Folder(Path(home)), checkpoints=checkpoints, objective=Objective(),
            workers=workers, population=population, seed=0, timeout_s=None, every="auto", hold=True,
            synchronous=False, log=lambda *_: None,
        )  # fmt: skip
        watch = Watch(crew, clock, minutes)
        began = time.perf_counter()
        clock.mark()

        def watched(tuner: Tuner) -> str | None:
            if watch(tuner) is not None:
                raise EndError
            return None

        with suppress(EndError):
            run(tuner, runner, store, checkpoints, watched)
        wall = time.perf_counter() - began
        store.close()
    (t0, trained0, again0), (t1, trained1, again1) = watch.since, watch.until
    worker_s = workers * (t1 - t0)
    took, idle = sorted(tuner.took), sorted(crew.idle)
    return {
        "share": (trained1 - trained0) / worker_s,
        "again": (again1 - again0) / worker_s,
        "lost": crew.lost,
        "trials": len(tuner.population.trials),
        "decision_p99_ms": 1e3 * took[int(0.99 * len(took))],
        "decision_median_ms": 1e3 * statistics.median(took),
        "idle_median_ms": 1e3 * statistics.median(idle),
        "idle_p99_ms": 1e3 * idle[int(0.99 * len(idle))],
        "controller": wall / clock.now,
        "turns": watch.turns,
    }


class EndError(Exception):
    """It has run long enough."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--population", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=15)
    print(json.dumps(simulated(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
