"""A million trials on two cores: what the controller needs for them, and how that grows.

    python bench/load.py [--population N] [--steps N] [--together N] [--asynchronous]

The loop, the tuner, the retention of checkpoints and the journal on disk are the real ones. The
slots are simulated: as many as there are members, each done after a time that is drawn, and told of
with the others that have ended by then, `--together` of them at most.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from random import Random

import psutil

from shoal.checkpoints import Checkpoints
from shoal.core.records import Finished, Report, Seen, Started, Trial
from shoal.core.space import Float, Space
from shoal.core.tuner import Tuner
from shoal.loop import run
from shoal.stores.sqlite import SqliteStore

SPACE = Space({"lr": Float(1e-4, 1.0, log=True), "momentum": Float(0, 0.99)})
MARKS = 10  # how often we look while it runs


class Slots:
    """Room for `many` trials at a time, each of which takes a drawn time."""

    waiting_for = None
    holds = False

    def __init__(self, many: int, together: int, checkpoints: Checkpoints) -> None:
        self._many, self._together, self._checkpoints = many, together, checkpoints
        self._rng, self._now = Random(0), 0.0
        self._running: list[tuple[float, int, Trial]] = []  # a heap by when they end

    @property
    def free(self) -> int:
        return self._many - len(self._running)

    def submit(self, trial: Trial) -> None:
        until = self._now + self._rng.lognormvariate(0, 0.5)
        heappush(self._running, (until, trial.id, trial))

    def wait(self) -> Sequence[Report | Seen]:
        events: list[Report | Seen] = []
        for _ in range(min(self._together, len(self._running))):
            self._now, _, trial = heappop(self._running)
            self._checkpoints.published(trial.id)
            events += [Started(trial.id), Finished(trial.id, self._rng.random(), {"loss": 0.5})]
        return events

    def wake(self) -> None: ...
    def resize(self, slots: int) -> None: ...
    def withdraw(self) -> None: ...
    def settle(self, until: float) -> None: ...
    def close(self) -> None: ...


class Watch:
    """Looks at the process ten times in a run."""

    def __init__(self, total: int) -> None:
        self._total, self._next = total, 0
        self._began, self._process = time.perf_counter(), psutil.Process()
        self.seen: list[tuple[int, float, int]] = []  # trials, seconds, bytes

    def __call__(self, tuner: Tuner) -> None:
        trials = len(tuner.population.trials)
        if trials >= self._next:
            gc.collect()
            memory = self._process.memory_info().rss
            self.seen.append((trials, time.perf_counter() - self._began, memory))
            print(f"{trials:>9,} trials  {self.seen[-1][1]:7.1f} s  {memory / 2**20:7.1f} MiB")
            self._next += self._total // MARKS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--population", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--together", type=int, default=64)
    parser.add_argument("--asynchronous", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        store = SqliteStore.create(path, {})
        tuner = Tuner(
            SPACE,
            population=given.population,
            steps=given.steps,
            synchronous=not given.asynchronous,
        )
        checkpoints = Checkpoints(Path(folder) / "checkpoints", tuner.population)
        watch = Watch(given.population * given.steps)
        run(tuner, Slots(given.population, given.together, checkpoints), store, checkpoints, watch)
        watch(tuner)
        store.close()
        (early, began, before), (late, ended, after) = watch.seen[1], watch.seen[-1]
        rate = (late - early) / (ended - began)
        size = path.stat().st_size / late
        print(
            f"{ended:.0f} s, {rate:,.0f} trials/s; memory {after / 2**20:.0f} MiB, "
            f"{(after - before) / (late - early):.0f} bytes/trial; journal "
            f"{path.stat().st_size / 2**20:.0f} MiB, {size:.0f} bytes/trial"
        )


if __name__ == "__main__":
    main()
